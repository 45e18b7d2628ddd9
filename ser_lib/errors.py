"""The errors a user can meet. Each message names the file, what was found, and the remedy."""


class SerError(Exception):
    """Base of the family: the command line prints it as one line, the server as JSON."""


class AudioError(SerError):
    """A clip that cannot be read, or that holds nothing to judge an emotion by."""


class CorpusError(SerError):
    """A folder, manifest, download or feature table that is not what it should be."""


class ContaminationError(CorpusError):
    """A split whose test clips were, in some form, trained on."""


class ReportError(SerError):
    """A notebook that is unknown, got a wrong parameter, or failed while running."""


class BundleError(SerError):
    """A model file that is missing or altered, or that does not hear what it must."""
