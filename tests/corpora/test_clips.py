"""Clip tables from file names and manifests; unreadable files become problems."""

from __future__ import annotations

import os
import unicodedata
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from synth import ACTORS, speech
from test_schemes import NAMES

from ser_lib import corpora
from ser_lib.corpora import AUDIO_COLUMNS, CLIP_COLUMNS, EIGHT, FOUR, emotion_list, find_audio
from ser_lib.corpora import clips as clips_module
from ser_lib.corpora.ravdess import check_ravdess_grid
from ser_lib.corpora.schemes import NAMING
from ser_lib.errors import CorpusError
from ser_lib.features import extraction, tables
from ser_lib.runs import preflight

CLIP = np.round(speech("sad", 3) * 2**15).astype(np.int16)


def put(path: Path, samples: np.ndarray = CLIP) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16_000)
    return path


def numbered(n: int) -> np.ndarray:
    """A clip with samples of its own."""
    return CLIP[n:]


@pytest.fixture(autouse=True)
def _small(tmp_path_factory, monkeypatch):
    """Features in this process, into a cache of the test's own."""
    here = {"cache_dir": tmp_path_factory.mktemp("cache"), "n_jobs": 1}
    monkeypatch.setattr(extraction, "build", partial(extraction.build, **here))


def read(source) -> corpora.Corpus:
    """A corpus as a notebook loads it, with the audio columns of every file."""
    return tables.load_data(source, "compact").corpus


# --- schemes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", NAMING)
def test_a_folder_of_each_scheme(scheme, tmp_path):
    names = {name: expected for of, name, expected in NAMES if of == scheme}
    for n, name in enumerate(names):
        put(tmp_path / f"{name}.wav", numbered(n))
    corpus = read(tmp_path)
    assert tuple(corpus.clips.columns) == CLIP_COLUMNS
    assert corpus.problems.empty
    assert set(zip(corpus.clips["speaker"], corpus.clips["emotion"], strict=True)) == {
        (expected[1], expected[3]) for expected in names.values()
    }
    assert not corpus.clips.isna().any(axis=None)
    assert corpus.clips["clip_id"].is_unique
    if scheme == "savee":
        assert set(corpus.clips["clip_id"]) == {name.replace("/", "_") for name in names}
    if scheme == "cremad":
        assert set(corpus.clips["gender"]) == {"unknown"}


# --- folders ---------------------------------------------------------------------------------------


def test_the_synthesised_corpus(tiny_corpus):
    corpus = read(tiny_corpus)
    clips = corpus.clips
    assert tuple(clips.columns) == CLIP_COLUMNS
    assert len(clips) == 6 * 18
    assert list(clips["speaker"].unique()) == [f"{actor:02d}" for actor in ACTORS]
    assert set(clips["emotion"]) == set(EIGHT)
    assert set(clips["duration_s"]) == {1.2}
    assert set(clips["sample_rate"]) == {16_000}
    assert set(clips["channels"]) == {1}
    assert clips["audio_sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert corpus.summary() == (
        "108 clips of 6 speakers, 8 emotions; 0 file(s) left out, 0 mixed down from stereo, 0 sample-identical"
    )


def test_unreadable_files_are_listed_and_the_rest_goes_on(tmp_path):
    folder = tmp_path / "Actor_01"
    good = put(folder / "03-01-01-01-01-01-01.wav")
    put(folder / "holiday.wav")
    put(tmp_path / "copy" / "03-01-01-01-01-01-01.wav", numbered(1))
    (folder / "03-01-02-01-01-01-01.wav").touch()
    (folder / "03-01-03-01-01-01-01.wav").write_text("not a recording\n" * 100, encoding="utf-8")
    (folder / "._03-01-04-01-01-01-01.wav").write_bytes(b"left by another system")
    (folder / "notes.txt").write_text("no audio", encoding="utf-8")
    corpus = read(tmp_path)
    assert list(corpus.clips["path"]) == [str(good)]
    problems = {Path(path).name: problem for path, problem in corpus.problems.itertuples(index=False)}
    assert len(corpus.problems) == 4
    assert problems["holiday.wav"] == "holiday.wav: not a ravdess name"
    assert problems["03-01-02-01-01-01-01.wav"].endswith(": empty file (0 bytes); record or copy it again")
    assert "not audio, or damaged" in problems["03-01-03-01-01-01-01.wav"]
    assert problems["03-01-01-01-01-01-01.wav"] == "03-01-01-01-01-01-01.wav: a second file of this name"
    assert "1 clips of 1 speakers, 1 emotions; 4 file(s) left out" in corpus.summary()


def test_a_listing_is_the_clip_table_without_the_audio_columns(tiny_corpus, tmp_path, monkeypatch):
    clips, problems = corpora.listing(tiny_corpus)
    assert problems.empty
    assert [*clips.columns, *AUDIO_COLUMNS] == list(CLIP_COLUMNS)
    assert clips.equals(read(tiny_corpus).clips[list(clips.columns)])
    monkeypatch.setattr(clips_module, "CHUNK", 7)
    assert corpora.listing(tiny_corpus)[0].equals(clips)
    empty = tmp_path / "03-01-01-01-01-01-01.wav"
    empty.touch()  # no file is opened
    assert list(corpora.listing(tmp_path)[0]["path"]) == [str(empty)]


def test_a_listing_goes_folder_by_folder(tmp_path):
    """A hyphen comes before the separator in text, and after it here."""
    for name in ("a-b/03-01-01-01-01-01-02", "a/03-01-01-01-01-01-01", "a/c/03-01-01-01-01-01-03"):
        put(tmp_path / f"{name}.wav")
    assert list(corpora.listing(tmp_path)[0]["speaker"]) == ["01", "03", "02"]


def test_stereo_and_sample_identical_clips_are_found(tmp_path):
    put(tmp_path / "03-01-01-01-01-01-01.wav")
    put(tmp_path / "03-01-01-01-01-02-01.flac")  # the same samples in another file
    put(tmp_path / "03-01-02-01-01-01-01.wav", np.stack([numbered(1), numbered(1) // 2], axis=1))
    changed = CLIP.copy()
    changed[-1] += 1
    put(tmp_path / "03-01-02-01-01-02-01.wav", changed)
    corpus = read(tmp_path)
    assert list(corpus.stereo["clip_id"]) == ["03-01-02-01-01-01-01"]
    assert list(corpus.duplicates["clip_id"]) == ["03-01-01-01-01-01-01", "03-01-01-01-01-02-01"]
    assert "1 mixed down from stereo, 2 sample-identical" in corpus.summary()


def test_folders_without_clips_are_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"gone: no such folder; correct corpus=… or SER_RAVDESS_DIR"):
        read(tmp_path / "gone")
    with pytest.raises(CorpusError, match=r"no recordings \(\.wav, .*\) in it or its subfolders"):
        read(tmp_path)
    put(tmp_path / "holiday.wav")
    message = r"holiday\.wav and the other names fit no known corpus \(ravdess, .*\); give a CSV manifest"
    with pytest.raises(CorpusError, match=message):
        read(tmp_path)
    (tmp_path / "03-01-01-01-01-01-01.wav").touch()
    (tmp_path / "holiday.wav").unlink()
    with pytest.raises(CorpusError, match=r"no usable clip \(.*: empty file"):
        read(tmp_path)
    with pytest.raises(CorpusError, match=r"01\.wav: a file, but no table \(\.csv, \.tsv, \.txt\)"):
        read(tmp_path / "03-01-01-01-01-01-01.wav")


# --- manifests -------------------------------------------------------------------------------------


def manifest(folder: Path, text: str, name: str = "mine.csv") -> Path:
    for n in range(3):
        put(folder / "clips" / f"{n}.wav", numbered(n))
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_manifest_of_three_columns(tmp_path):
    path = manifest(
        tmp_path, f"path,speaker,emotion\nclips/0.wav,01,happy\nclips/1.wav,ann,sad\n{tmp_path}/clips/2.wav,01,sad\n"
    )  # fmt: skip
    clips = read(path).clips
    assert tuple(clips.columns) == CLIP_COLUMNS
    assert list(clips["clip_id"]) == ["clips/0", "clips/1", f"{tmp_path.as_posix()}/clips/2"]
    assert list(clips["speaker"]) == ["01", "ann", "01"]
    assert list(clips["emotion"]) == ["happy", "sad", "sad"]
    assert set(clips["corpus"]) == {"mine"}
    assert set(clips["gender"]) == {"unknown"}
    assert set(clips["intensity"]) == {"unspecified"}
    assert list(clips["duration_s"]) == [
        1.2,
        round((len(CLIP) - 1) / 16_000, 4),
        round((len(CLIP) - 2) / 16_000, 4),
    ]


def test_a_manifest_with_optional_columns(tmp_path):
    path = manifest(
        tmp_path,
        "clip_id,path,corpus,speaker,gender,emotion,mood,duration_s\n"
        "1,clips/0.wav,attic,7,female,happy,x,99\n2,clips/1.wav,attic,8,,sad,y,99\n",
    )
    clips = read(path).clips
    assert list(clips["clip_id"]) == ["1", "2"]
    assert list(clips["speaker"]) == ["7", "8"]
    assert set(clips["corpus"]) == {"attic"}
    assert list(clips["gender"]) == ["female", "unknown"]
    assert "mood" not in clips
    assert clips["duration_s"].max() == 1.2  # measured, not from the CSV


def test_a_manifest_names_a_file_that_is_not_there(tmp_path):
    path = manifest(tmp_path, "path,speaker,emotion\nclips/0.wav,1,happy\nclips/9.wav,1,sad\n")
    corpus = read(path)
    assert list(corpus.clips["clip_id"]) == ["clips/0"]
    assert corpus.problems["path"].item() == f"{tmp_path}/clips/9.wav"
    assert corpus.problems["problem"].item().endswith(": no such file")


def test_paths_that_start_at_the_working_folder_are_refused_with_the_right_ones(tmp_path, monkeypatch):
    path = manifest(tmp_path / "my", "path,speaker,emotion\nmy/clips/0.wav,1,happy\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CorpusError, match=r"my/clips/0\.wav is not in the folder of the CSV, .* as clips/0\.wav$"
    ):
        read(path)
    path.write_text("path,speaker,emotion\nclips/0.wav,1,happy\n", encoding="utf-8")
    assert len(read(Path("my/mine.csv")).clips) == 1


def test_problems_name_the_file(tmp_path):
    corpus = read(manifest(tmp_path, "path,speaker,emotion\nclips/0.wav,1,happy\nclips/9.wav,1,sad\n"))
    assert corpus.problems["problem"].item() == f"{tmp_path}/clips/9.wav: no such file"


def test_a_manifest_column_with_gaps_is_of_one_type(tmp_path):
    """A table of mixed types cannot be written as Parquet."""
    path = manifest(tmp_path, "path,speaker,emotion,statement\nclips/0.wav,1,sad,5\nclips/1.wav,1,sad,\n")
    assert read(path).clips["statement"].tolist() == ["5", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,speaker\nclips/0.wav,1\n", r"mine\.csv: no column emotion among path, speaker; it needs path, speaker, emotion"),
        ("file;speaker;emotion\n", r"mine\.csv: no column path among file, speaker, emotion"),
        ("path,speaker,emotion\nclips/0.wav,1,sad\nclips/1.wav,,sad\n", r"mine\.csv: line 3: no speaker; fill it in$"),
        ("path,speaker,emotion\nclips/0.wav,1,\n", r"mine\.csv: line 2: no emotion"),
        ("path,speaker,emotion\n\nclips/0.wav,1,sad\n,,\nclips/1.wav,,sad\n", r"line 5: no speaker"),
        ("path,speaker,emotion,corpus\nclips/0.wav,1,sad,a\nclips/1.wav,1,sad,\n", r"line 3: no corpus; .* delete the"),
        ("path,speaker,emotion,clip_id\nclips/0.wav,1,sad, \n", r"line 2: no clip_id; .* delete the column"),
        ("path,speaker,emotion,repetition\nclips/0.wav,1,sad,one\n", r"line 2: repetition 'one' is no whole"),
        ("path,speaker,emotion\nclips/0.wav,1,happy, excited\n", r"in line 2, saw 4\); put cells with a ',' in double q"),
        ("path,Path,speaker,emotion\nclips/0.wav,x,1,sad\n", r"two columns path; rename one"),
        ('path,speaker,emotion\nclips/0.wav,1,"happy, odd"\n', r"comma in its emotion 'happy, odd' .*labels: \{\"happy, odd\": happy\}"),
        ("path,speaker,emotion\nclips/0.wav,1,sad\nclips/0.wav,2,sad\n", r"mine\.csv: clips/0\.wav is listed twice, lines 2 and 3"),
        ("clip_id,path,speaker,emotion\na,clips/0.wav,1,sad\na,clips/1.wav,2,sad\n", r"mine\.csv: a is listed"),
        ("", r"mine\.csv: not a CSV table"),
        ("path,speaker,emotion\nclips/0.wav,1,sad,4,5\nclips/0.wav\n,,,,,,,,\n", r"mine\.csv: "),
        ("path,speaker,emotion\n", r"mine\.csv: no readable clip \(nothing in it\)"),
    ],
)  # fmt: skip
def test_manifests_that_are_refused(text, message, tmp_path):
    with pytest.raises(CorpusError, match=message):
        read(manifest(tmp_path, text))


def test_a_manifest_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("path,speaker,emotion\na.wav,Jürgen,sad\n".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"table\.csv: not a text in UTF-8 .*; save it as 'CSV UTF-8'"):
        read(path)


PLAIN = "path,speaker,emotion\nclips/0.wav,01,happy\nclips/1.wav,Jürgen,sad\n"


@pytest.mark.parametrize(
    ("text", "encoding", "name"),
    [
        (PLAIN.replace(",", ", "), "utf-8", "mine.csv"),
        (PLAIN.replace(",", " ,\xa0"), "utf-8", "mine.csv"),
        (PLAIN.replace(",", ";"), "utf-8-sig", "mine.csv"),
        ("sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"), "utf-16", "mine.csv"),
        (PLAIN.replace(",", "\t"), "utf-16", "mine.txt"),
        (PLAIN.replace(",", "\t"), "utf-8", "mine.tsv"),
        (
            PLAIN.replace(",", "|").replace("speaker", " Speaker ").replace("path", '"PATH"'),
            "utf-8",
            "mine.csv",
        ),
        ("\n\n" + PLAIN + ",,\n\n", "utf-8", "mine.csv"),
        (PLAIN.replace("/", "\\"), "utf-8", "mine.csv"),
        (unicodedata.normalize("NFD", PLAIN), "utf-8", "mine.csv"),
    ],
)
def test_a_manifest_as_spreadsheets_write_it(text, encoding, name, tmp_path):
    path = manifest(tmp_path, "", name)
    path.write_bytes(text.encode(encoding))
    clips, problems = corpora.listing(path)
    rows = list(clips[["clip_id", "path", "corpus", "speaker", "emotion"]].itertuples(index=False, name=None))
    assert rows == [
        ("clips/0", f"{tmp_path}/clips/0.wav", "mine", "01", "happy"),
        ("clips/1", f"{tmp_path}/clips/1.wav", "mine", "Jürgen", "sad"),
    ]
    assert problems.empty


def test_names_that_other_programs_take_for_nothing_are_text(tmp_path):
    names = ["NA", "None", "null", "nan", "1"]
    text = "".join(f"clips/{n}.wav,{name},{name}\n" for n, name in enumerate(names))
    clips, _ = corpora.listing(manifest(tmp_path, f"path,speaker,emotion\n{text}"))
    assert clips["speaker"].to_list() == clips["emotion"].to_list() == names
    assert emotion_list(",".join(names)) == names


def test_a_clip_keeps_its_suffix_where_two_differ_in_nothing_else(tmp_path):
    path = manifest(
        tmp_path, "path,speaker,emotion\nclips/0.wav,1,sad\nclips/0.mp3,1,happy\nclips/1.wav,2,sad\n"
    )
    assert corpora.listing(path)[0]["clip_id"].to_list() == ["clips/0.wav", "clips/0.mp3", "clips/1"]


def test_paths_that_no_file_can_have_are_problems(tmp_path):
    odd = ["C:\\\\data\\\\a.wav", "x" * 5000, "~nosuchuser/a.wav", "."]
    text = "".join(f"{name},1,sad\n" for name in odd)
    corpus = read(manifest(tmp_path, f"path,speaker,emotion\nclips/0.wav,1,sad\n{text}"))
    assert len(corpus.clips) == 1
    assert len(corpus.problems) == len(odd)


def test_a_label_with_a_comma_can_be_renamed(tmp_path):
    path = manifest(tmp_path, 'path,speaker,emotion\nclips/0.wav,1,"happy, odd"\n')
    (tmp_path / "labels.yaml").write_text('labels: {"happy, odd": happy}', encoding="utf-8")
    assert corpora.listing(path)[0]["emotion"].to_list() == ["happy"]


@pytest.mark.parametrize("source", [" ", ",", " , "])
def test_a_source_that_names_nothing_is_refused(source):
    with pytest.raises(CorpusError, match="names nothing; give a folder or a CSV manifest"):
        find_audio(source)


CASES = {
    "headspaces": "angry", "big_spaces": "happy", "semicolon": "angry", "case": "angry", "utf16": "angry",
    "na_label": "None", "na_speaker": "angry", "twoext": "sad", "corpus_hole": "line 4: no corpus",
    "clipid_hole": "line 4: no clip_id",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_cases(name):
    folder = os.environ.get("SER_CASES_DIR")
    if not folder:
        pytest.skip("SER_CASES_DIR is not set: give it the folder of the cases to run this test")
    path = Path(folder) / "csv" / f"{name}.csv"
    if name.endswith("hole"):
        with pytest.raises(CorpusError, match=CASES[name]):
            corpora.listing(path)
        return
    clips, problems = corpora.listing(path)
    assert problems.empty
    assert CASES[name] in set(clips["emotion"])
    assert len(clips) == {"big_spaces": 72, "twoext": 3}.get(name, 6)


# --- labels ----------------------------------------------------------------------------------------


def labelled(folder: Path, text: str) -> Path:
    """A manifest of happy, joy and 01, with a `labels.yaml`."""
    path = manifest(
        folder, "path,speaker,emotion\nclips/0.wav,1,happy\nclips/1.wav,1,joy\nclips/2.wav,2,01\n"
    )
    (folder / "labels.yaml").write_text(text, encoding="utf-8")
    return path


def test_labels_are_renamed_and_left_out(tmp_path):
    path = labelled(tmp_path, "labels: {joy: happy, 01: null, never: sad}")
    corpus = read(path)
    assert corpus.clips["emotion"].to_list() == ["happy", "happy"]
    assert corpus.problems["problem"].to_list() == [f"{tmp_path}/clips/2.wav: 01, left out by labels.yaml"]
    assert "2 clips of 1 speakers, 1 emotions; 1 file(s) left out" in corpus.summary()
    assert preflight.describe(corpus)["problems"] == []
    assert preflight.label_changes(path) == [
        {"label": "joy", "emotion": "happy", "clips": 1},
        {"label": "01", "emotion": None, "clips": 1},
        {"label": "never", "emotion": "sad", "clips": 0},
    ]


def test_labels_of_a_folder_lie_in_it(tmp_path):
    for n, name in enumerate(("03a01La", "03a01Fa", "03a01Wa")):
        put(tmp_path / f"{name}.wav", numbered(n))
    (tmp_path / "labels.yaml").write_text("labels:\n  bored: ~\n  happy: glad\n", encoding="utf-8")
    assert read(tmp_path).clips["emotion"].to_list() == ["glad", "angry"]
    (tmp_path / "labels.yaml").unlink()
    assert set(read(tmp_path).clips["emotion"]) == {"happy", "bored", "angry"}


@pytest.mark.parametrize(
    "text", ["", "joy: happy", "labels:", "labels: [joy]", "labels: {joy: [a, b]}", "{", "labels: 3"]
)
def test_label_maps_that_are_refused(text, tmp_path):
    with pytest.raises(
        CorpusError, match=r"labels\.yaml: not a map of labels; write it as `labels: \{joy: happy"
    ):
        read(labelled(tmp_path, text))


def test_labels_that_leave_out_everything_are_refused(tmp_path):
    with pytest.raises(
        CorpusError, match=r"mine\.csv: no readable clip \(.*: happy, left out by labels\.yaml"
    ):
        read(labelled(tmp_path, "labels: {happy: null, joy: null, 01: null}"))


# --- several corpora -------------------------------------------------------------------------------


def test_speakers_of_two_corpora_are_kept_apart(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    put(one / "03-01-03-01-01-01-03.wav")
    put(two / "03a01Fa.wav", numbered(1))
    put(two / "03a01Wa.wav", numbered(2))
    clips = read(f"{one},{two}").clips
    assert clips["speaker"].to_list() == ["ravdess:03", "emodb:03", "emodb:03"]
    assert clips["clip_id"].to_list() == ["ravdess:03-01-03-01-01-01-03", "emodb:03a01Fa", "emodb:03a01Wa"]
    assert clips["corpus"].to_list() == ["ravdess", "emodb", "emodb"]
    assert clips["emotion"].to_list() == ["happy", "happy", "angry"]
    assert find_audio(f"{one},{two}") == Path(f"{one},{two}")
    with pytest.raises(CorpusError, match=r"gone: no such folder"):
        find_audio(f"{one},{tmp_path / 'gone'}")


def test_a_path_with_a_comma_is_one_corpus(tmp_path):
    put(tmp_path / "a,b" / "03a01Fa.wav")
    assert corpora.sources(tmp_path / "a,b") == [tmp_path / "a,b"]
    assert read(tmp_path / "a,b").clips["speaker"].to_list() == ["03"]
    assert corpora.sources("~/x, y") == [Path.home() / "x", Path("y")]


def test_two_parts_of_one_corpus_have_the_same_speakers(tmp_path):
    """The actors of RAVDESS sing, too; and a file that lies in both parts counts once."""
    put(tmp_path / "speech" / "03-01-03-01-01-01-03.wav")
    put(tmp_path / "song" / "03-02-03-01-01-01-03.wav", numbered(1))
    corpus = read(f"{tmp_path}/speech,{tmp_path}/song")
    assert corpus.clips["speaker"].to_list() == ["03", "03"]
    put(tmp_path / "more" / "03-01-03-01-01-01-03.wav", numbered(2))
    corpus = read(f"{tmp_path}/speech,{tmp_path}/more")
    assert len(corpus.clips) == 1
    assert corpus.problems["problem"].item().endswith("a second file of this name")


def test_manifests_of_one_name_are_refused(tmp_path):
    paths = [manifest(tmp_path / name, "path,speaker,emotion\nclips/0.wav,1,sad\n") for name in "ab"]
    with pytest.raises(
        CorpusError, match=r"a/mine\.csv and .*b/mine\.csv: both are corpus 'mine'.*rename one"
    ):
        read(f"{paths[0]},{paths[1]}")
    paths[1].write_text("path,speaker,emotion,corpus\nclips/0.wav,1,sad,other\n", encoding="utf-8")
    assert read(f"{paths[0]},{paths[1]}").clips["speaker"].to_list() == ["mine:1", "other:1"]


def test_a_label_map_applies_to_its_own_corpus(tmp_path):
    a = labelled(tmp_path / "a", "labels: {joy: happy, 01: null}")
    b = manifest(tmp_path / "b", "path,speaker,emotion\nclips/0.wav,1,joy\n", name="b.csv")
    clips = read(f"{a},{b}").clips
    assert clips["emotion"].to_list() == ["happy", "happy", "joy"]
    assert [row["clips"] for row in preflight.label_changes(f"{a},{b}")] == [1, 1]


# --- where the audio is ----------------------------------------------------------------------------


def test_the_folder_named_comes_before_the_environment_and_the_download(tmp_path, monkeypatch):
    named, environment = tmp_path / "named", tmp_path / "environment"
    downloaded = tmp_path / "data" / "ravdess"
    monkeypatch.setattr(clips_module, "ROOT", tmp_path)
    monkeypatch.delenv("SER_RAVDESS_DIR", raising=False)
    assert find_audio() is None
    for folder in (named, environment, downloaded):
        folder.mkdir(parents=True)
    assert find_audio() == downloaded
    monkeypatch.setenv("SER_RAVDESS_DIR", str(environment))
    assert find_audio() == environment
    assert find_audio("") == environment
    assert find_audio(named) == named
    assert find_audio(str(named)) == named


def test_a_folder_named_that_does_not_exist_is_refused(tmp_path, monkeypatch):
    with pytest.raises(
        CorpusError, match=r"gone: no such folder; correct corpus=… or SER_RAVDESS_DIR, or unset"
    ):
        find_audio(tmp_path / "gone")
    monkeypatch.setenv("SER_RAVDESS_DIR", str(tmp_path / "lost"))
    with pytest.raises(CorpusError, match=r"lost: no such folder"):
        find_audio()


def test_emotion_lists():
    assert emotion_list("four") == list(FOUR) == ["calm", "happy", "fearful", "disgust"]
    assert emotion_list("eight") == list(EIGHT)
    assert emotion_list(" sad , angry,") == ["sad", "angry"]
    assert emotion_list(("sad", "angry")) == ["sad", "angry"]


@pytest.mark.parametrize("spec", ["", "happy", ",", "happy,happy", ["sad"], [], ("sad", " sad")])
def test_emotion_lists_that_are_refused(spec):
    with pytest.raises(CorpusError, match=r"give 'four', 'eight' or at least two different names"):
        emotion_list(spec)


# --- real recordings -------------------------------------------------------------------------------


@pytest.mark.slow
def test_ravdess_is_the_published_grid(ravdess):
    """Properties of the published corpus, from every sample; the identical pair is a mistake of the publishers."""
    corpus = read(ravdess)
    clips = corpus.clips
    assert check_ravdess_grid(clips) == ([], [])
    assert corpus.problems.empty
    assert sorted(corpus.stereo["clip_id"]) == [
        "03-01-02-01-01-02-01", "03-01-02-01-02-02-05", "03-01-03-01-02-01-20",
        "03-01-06-01-01-02-20", "03-01-08-01-02-02-01",
    ]  # fmt: skip
    assert sorted(corpus.duplicates["clip_id"]) == ["03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]
    assert set(clips["sample_rate"]) == {48_000}
    assert clips["duration_s"].agg(["min", "mean", "max"]).round(2).tolist() == [2.94, 3.70, 5.27]
    assert clips.groupby("speaker").size().tolist() == [60] * 24
    assert clips["emotion"].value_counts().to_dict() == dict.fromkeys(EIGHT[1:], 192) | {"neutral": 96}
    assert clips["gender"].value_counts().to_dict() == {"male": 720, "female": 720}


def test_emodb_has_ten_speakers(emodb):
    clips = read(emodb).clips
    assert clips["speaker"].nunique() == 10
    assert set(clips["emotion"]) >= {"angry", "neutral", "happy", "sad"}
    assert clips.groupby("speaker")["gender"].first().value_counts().to_dict() == {"male": 5, "female": 5}
