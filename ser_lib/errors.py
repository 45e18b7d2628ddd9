"""The errors a user can meet. Each message names the file, what was found, and the remedy."""


class SerError(Exception):
    """Base of the family: the command line prints it as one line, the server as JSON."""


class AudioError(SerError):
    """A clip that cannot be read, or is too short, silent or otherwise unusable."""


class CorpusError(SerError):
    """A folder, manifest, download or feature table that is missing or invalid."""


class ContaminationError(CorpusError):
    """A split with test clips that are, in some form, in training too."""


class ReportError(SerError):
    """A notebook that is unknown, got a wrong parameter, or failed while running."""


class BundleError(SerError):
    """A model file that is missing or altered, or fails its self-test."""
