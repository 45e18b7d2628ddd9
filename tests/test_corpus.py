"""corpus: names and manifests become the clip table; what cannot be read is named and left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from synth import ACTORS, speech

from ser_lib import corpus
from ser_lib.cache import FACTS
from ser_lib.corpus import CLIP_COLUMNS, EIGHT, FOUR, NAMING, check_ravdess_grid, emotion_list, find_audio
from ser_lib.errors import CorpusError
from ser_lib.splits import PROTOCOLS, doubts

CLIP = np.round(speech("sad", 3) * 2**15).astype(np.int16)


def put(path: Path, samples: np.ndarray = CLIP) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16_000)
    return path


def numbered(n: int) -> np.ndarray:
    """A clip like no other."""
    return CLIP[n:]


def read(source) -> corpus.Corpus:
    return corpus.read(source, n_jobs=1)


# --- names -----------------------------------------------------------------------------------------

NAMES = [
    ("ravdess", "03-01-01-01-01-01-01", ("ravdess", "01", "male", "neutral", "normal", "kids", 1)),
    ("ravdess", "03-01-02-01-02-01-02", ("ravdess", "02", "female", "calm", "normal", "dogs", 1)),
    ("ravdess", "03-01-03-02-01-02-11", ("ravdess", "11", "male", "happy", "strong", "kids", 2)),
    ("ravdess", "03-01-04-01-01-01-24", ("ravdess", "24", "female", "sad", "normal", "kids", 1)),
    ("ravdess", "03-01-05-01-01-01-23", ("ravdess", "23", "male", "angry", "normal", "kids", 1)),
    ("ravdess", "03-01-06-01-01-01-10", ("ravdess", "10", "female", "fearful", "normal", "kids", 1)),
    ("ravdess", "03-01-07-01-01-01-09", ("ravdess", "09", "male", "disgust", "normal", "kids", 1)),
    ("ravdess", "03-01-08-02-02-02-16", ("ravdess", "16", "female", "surprised", "strong", "dogs", 2)),
    ("ravdess", "03-02-06-02-01-02-05", ("ravdess-song", "05", "male", "fearful", "strong", "kids", 2)),
    ("emodb", "03a01Wa", ("emodb", "03", "male", "angry", None, "a01", 1)),
    ("emodb", "08a02Lc", ("emodb", "08", "female", "bored", None, "a02", 3)),
    ("emodb", "09b03Ea", ("emodb", "09", "female", "disgust", None, "b03", 1)),
    ("emodb", "10a04Ab", ("emodb", "10", "male", "fearful", None, "a04", 2)),
    ("emodb", "11b10Fd", ("emodb", "11", "male", "happy", None, "b10", 4)),
    ("emodb", "16a05Ta", ("emodb", "16", "female", "sad", None, "a05", 1)),
    ("emodb", "15a07Na", ("emodb", "15", "male", "neutral", None, "a07", 1)),
    ("cremad", "1001_DFA_ANG_XX", ("cremad", "1001", None, "angry", "unspecified", "DFA", None)),
    ("cremad", "1091_IEO_DIS_LO", ("cremad", "1091", None, "disgust", "low", "IEO", None)),
    ("cremad", "1002_IEO_FEA_MD", ("cremad", "1002", None, "fearful", "medium", "IEO", None)),
    ("cremad", "1003_IEO_HAP_HI", ("cremad", "1003", None, "happy", "high", "IEO", None)),
    ("cremad", "1004_TAI_NEU_XX", ("cremad", "1004", None, "neutral", "unspecified", "TAI", None)),
    ("cremad", "1040_ITH_SAD_X", ("cremad", "1040", None, "sad", "unspecified", "ITH", None)),
    ("tess", "OAF_back_angry", ("tess", "OAF", "female", "angry", None, "back", None)),
    ("tess", "OA_bite_neutral", ("tess", "OAF", "female", "neutral", None, "bite", None)),
    ("tess", "YAF_youth_ps", ("tess", "YAF", "female", "surprised", None, "youth", None)),
    ("tess", "YAF_dog_fear", ("tess", "YAF", "female", "fearful", None, "dog", None)),
    ("tess", "OAF_fear_happy", ("tess", "OAF", "female", "happy", None, "fear", None)),
    ("tess", "OAF_sad_disgust", ("tess", "OAF", "female", "disgust", None, "sad", None)),
    ("tess", "YAF_ring_sad", ("tess", "YAF", "female", "sad", None, "ring", None)),
    ("savee", "DC_a01", ("savee", "DC", "male", "angry", None, "a01", None)),
    ("savee", "DC/d02", ("savee", "DC", "male", "disgust", None, "d02", None)),
    ("savee", "JE_f03", ("savee", "JE", "male", "fearful", None, "f03", None)),
    ("savee", "JE/h04", ("savee", "JE", "male", "happy", None, "h04", None)),
    ("savee", "JK/n30", ("savee", "JK", "male", "neutral", None, "n30", None)),
    ("savee", "KL/sa05", ("savee", "KL", "male", "sad", None, "sa05", None)),
    ("savee", "KL_su15", ("savee", "KL", "male", "surprised", None, "su15", None)),
]


@pytest.mark.parametrize(("scheme", "name", "expected"), NAMES)
def test_names_of_each_scheme(scheme, name, expected):
    path = Path(f"folder/{name}.wav")
    row = NAMING[scheme](path)
    columns = ("corpus", "speaker", "gender", "emotion", "intensity", "statement", "repetition")
    assert tuple(row.get(column) for column in columns) == expected
    assert [other for other, parse in NAMING.items() if parse(path)] == [scheme]


WRONG = [
    "02-01-01-01-01-01-01", "03-03-01-01-01-01-01", "03-01-09-01-01-01-01", "03-01-01-03-01-01-01",
    "03-01-01-01-03-01-01", "03-01-01-01-01-01-1", "03-01-01-01-01-01-01-01", "03-01-01-01-01-01-25",
    "03-01-01-01-01-01-00", "03a01Xa", "3a01Wa", "2001_DFA_ANG_XX", "1001_DFA_SUR_XX", "1001_DFA_ANG_HIGH",
    "MAF_back_angry", "OAF_back_calm", "XX_a01", "a01", "DC_x01", "speech",
]  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_names_of_no_scheme(name):
    assert [parse(Path(f"folder/{name}.wav")) for parse in NAMING.values()] == [None] * 5


@pytest.mark.parametrize("scheme", NAMING)
def test_a_folder_of_each_scheme(scheme, tmp_path):
    names = {name: facts for of, name, facts in NAMES if of == scheme}
    for n, name in enumerate(names):
        put(tmp_path / f"{name}.wav", numbered(n))
    held = read(tmp_path)
    assert tuple(held.clips.columns) == CLIP_COLUMNS
    assert held.problems.empty
    assert set(zip(held.clips["speaker"], held.clips["emotion"], strict=True)) == {
        (facts[1], facts[3]) for facts in names.values()
    }
    assert not held.clips.isna().any(axis=None)
    assert held.clips["clip_id"].is_unique
    if scheme == "savee":
        assert set(held.clips["clip_id"]) == {name.replace("/", "_") for name in names}
    if scheme == "cremad":
        assert set(held.clips["gender"]) == {"unknown"}


# --- folders ---------------------------------------------------------------------------------------


def test_the_synthesised_corpus(tiny_corpus):
    held = read(tiny_corpus)
    clips = held.clips
    assert tuple(clips.columns) == CLIP_COLUMNS
    assert len(clips) == 6 * 18
    assert list(clips["speaker"].unique()) == [f"{actor:02d}" for actor in ACTORS]
    assert set(clips["emotion"]) == set(EIGHT)
    assert set(clips["duration_s"]) == {1.2}
    assert set(clips["sample_rate"]) == {16_000}
    assert set(clips["channels"]) == {1}
    assert clips["audio_sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert held.summary() == (
        "108 clips of 6 speakers, 8 emotions; 0 file(s) left out, 0 mixed down from stereo, 0 sample-identical"
    )
    assert corpus.read(tiny_corpus, n_jobs=2).clips.equals(clips)


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(tmp_path):
    folder = tmp_path / "Actor_01"
    good = put(folder / "03-01-01-01-01-01-01.wav")
    put(folder / "holiday.wav")
    put(tmp_path / "copy" / "03-01-01-01-01-01-01.wav", numbered(1))
    (folder / "03-01-02-01-01-01-01.wav").touch()
    (folder / "03-01-03-01-01-01-01.wav").write_text("not a recording\n" * 100)
    (folder / "._03-01-04-01-01-01-01.wav").write_bytes(b"left by another system")
    (folder / "notes.txt").write_text("no audio")
    held = read(tmp_path)
    assert list(held.clips["path"]) == [str(good)]
    problems = {Path(path).name: problem for path, problem in held.problems.itertuples(index=False)}
    assert len(held.problems) == 4
    assert problems["holiday.wav"] == "holiday.wav: not a ravdess name"
    assert problems["03-01-02-01-01-01-01.wav"].endswith(": empty file (0 bytes); record or copy it again")
    assert "not audio, or damaged" in problems["03-01-03-01-01-01-01.wav"]
    assert problems["03-01-01-01-01-01-01.wav"] == "03-01-01-01-01-01-01.wav: a second file of this name"
    assert "1 clips of 1 speakers, 1 emotions; 4 file(s) left out" in held.summary()


def test_a_listing_is_what_reading_finds_without_the_facts(tiny_corpus, tmp_path, monkeypatch):
    clips, problems = corpus.listing(tiny_corpus)
    assert problems.empty
    assert [*clips.columns, *FACTS] == list(CLIP_COLUMNS)
    assert clips.equals(read(tiny_corpus).clips[list(clips.columns)])
    monkeypatch.setattr(corpus, "LISTED", 7)
    assert corpus.listing(tiny_corpus)[0].equals(clips)
    empty = tmp_path / "03-01-01-01-01-01-01.wav"
    empty.touch()  # no file is opened
    assert list(corpus.listing(tmp_path)[0]["path"]) == [str(empty)]


def test_a_listing_goes_folder_by_folder(tmp_path):
    """A hyphen comes before the separator in text, and after it here."""
    for name in ("a-b/03-01-01-01-01-01-02", "a/03-01-01-01-01-01-01", "a/c/03-01-01-01-01-01-03"):
        put(tmp_path / f"{name}.wav")
    assert list(corpus.listing(tmp_path)[0]["speaker"]) == ["01", "03", "02"]


def test_stereo_and_sample_identical_clips_are_found(tmp_path):
    put(tmp_path / "03-01-01-01-01-01-01.wav")
    put(tmp_path / "03-01-01-01-01-02-01.flac")  # the same samples in another file
    put(tmp_path / "03-01-02-01-01-01-01.wav", np.stack([numbered(1), numbered(1) // 2], axis=1))
    changed = CLIP.copy()
    changed[-1] += 1
    put(tmp_path / "03-01-02-01-01-02-01.wav", changed)
    held = read(tmp_path)
    assert list(held.stereo["clip_id"]) == ["03-01-02-01-01-01-01"]
    assert list(held.duplicates["clip_id"]) == ["03-01-01-01-01-01-01", "03-01-01-01-01-02-01"]
    assert "1 mixed down from stereo, 2 sample-identical" in held.summary()


def test_folders_without_clips_are_refused(tmp_path):
    with pytest.raises(
        CorpusError, match=r"gone: no such folder or CSV manifest; set SER_RAVDESS_DIR or run"
    ):
        read(tmp_path / "gone")
    with pytest.raises(CorpusError, match=r"no recordings \(\.wav, .*\) in it or its subfolders"):
        read(tmp_path)
    put(tmp_path / "holiday.wav")
    message = r"holiday\.wav and the other names are of no known corpus \(ravdess, .*\); give a CSV manifest"
    with pytest.raises(CorpusError, match=message):
        read(tmp_path)
    (tmp_path / "03-01-01-01-01-01-01.wav").touch()
    (tmp_path / "holiday.wav").unlink()
    with pytest.raises(CorpusError, match=r"no readable clip \(.*: empty file"):
        read(tmp_path)
    with pytest.raises(CorpusError, match=r"03-01-01-01-01-01-01\.wav: no such folder or CSV manifest"):
        read(tmp_path / "03-01-01-01-01-01-01.wav")


def test_the_grid_names_what_is_missing_and_what_is_extra():
    ids = [
        f"03-01-{e:02d}-{i:02d}-{s:02d}-{r:02d}-{a:02d}"
        for a in range(1, 25) for e in range(1, 9) for i in (1, 2)[: 1 if e == 1 else 2] for s in (1, 2) for r in (1, 2)
    ]  # fmt: skip
    assert len(ids) == 1_440
    assert check_ravdess_grid(pd.DataFrame({"clip_id": ids})) == ([], [])
    changed = pd.DataFrame({"clip_id": [*ids[1:-1], "03-01-01-02-01-01-01"]})
    assert check_ravdess_grid(changed) == (sorted([ids[0], ids[-1]]), ["03-01-01-02-01-01-01"])


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
    assert clips["duration_s"].max() == 1.2  # as read, not as told


def test_a_manifest_names_a_file_that_is_not_there(tmp_path):
    path = manifest(tmp_path, "path,speaker,emotion\nclips/0.wav,1,happy\nclips/9.wav,1,sad\n")
    held = read(path)
    assert list(held.clips["clip_id"]) == ["clips/0"]
    assert held.problems["path"].item() == f"{tmp_path}/clips/9.wav"
    assert held.problems["problem"].item().endswith(": no such file")


def test_paths_that_start_at_the_working_folder_are_refused_with_the_right_ones(tmp_path, monkeypatch):
    path = manifest(tmp_path / "my", "path,speaker,emotion\nmy/clips/0.wav,1,happy\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CorpusError, match=r"my/clips/0\.wav is not in the folder of the CSV, .* as clips/0\.wav$"
    ):
        read(path)
    path.write_text("path,speaker,emotion\nclips/0.wav,1,happy\n")
    assert len(read(Path("my/mine.csv")).clips) == 1


def test_problems_name_the_file(tmp_path):
    held = read(manifest(tmp_path, "path,speaker,emotion\nclips/0.wav,1,happy\nclips/9.wav,1,sad\n"))
    assert held.problems["problem"].item() == f"{tmp_path}/clips/9.wav: no such file"


def test_a_manifest_column_with_gaps_is_of_one_type(tmp_path):
    """A table of mixed types cannot be written as Parquet."""
    path = manifest(tmp_path, "path,speaker,emotion,statement\nclips/0.wav,1,sad,5\nclips/1.wav,1,sad,\n")
    assert read(path).clips["statement"].tolist() == ["5", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,speaker\nclips/0.wav,1\n", r"mine\.csv: no column emotion; it needs path, speaker, emotion"),
        ("file;speaker;emotion\n", r"mine\.csv: no column path, speaker, emotion"),
        ("path,speaker,emotion\nclips/0.wav,1,sad\nclips/1.wav,,sad\n", r"mine\.csv: line 3 lacks a path, sp"),
        ("path,speaker,emotion\nclips/0.wav,1,\n", r"mine\.csv: line 2 lacks"),
        ("path,speaker,emotion\nclips/0.wav,1,sad\nclips/0.wav,2,sad\n", r"mine\.csv: clips/0 is listed twice"),
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
    path.write_bytes("path,speaker,emotion\n".encode("utf-16"))
    with pytest.raises(CorpusError, match=r"table\.csv: not a CSV table"):
        read(path)


# --- labels ----------------------------------------------------------------------------------------


def labelled(folder: Path, text: str) -> Path:
    """A manifest of happy, joy and 01, with a `labels.yaml`."""
    path = manifest(
        folder, "path,speaker,emotion\nclips/0.wav,1,happy\nclips/1.wav,1,joy\nclips/2.wav,2,01\n"
    )
    (folder / "labels.yaml").write_text(text)
    return path


def test_labels_are_renamed_and_left_out(tmp_path):
    path = labelled(tmp_path, "labels: {joy: happy, 01: null, never: sad}")
    held = read(path)
    assert held.clips["emotion"].to_list() == ["happy", "happy"]
    assert held.problems["problem"].to_list() == [f"{tmp_path}/clips/2.wav: 01, left out by labels.yaml"]
    assert "2 clips of 1 speakers, 1 emotions; 1 file(s) left out" in held.summary()
    assert held.describe()["problems"] == []
    assert corpus.label_changes(path) == [
        {"label": "joy", "emotion": "happy", "clips": 1},
        {"label": "01", "emotion": None, "clips": 1},
        {"label": "never", "emotion": "sad", "clips": 0},
    ]


def test_labels_of_a_folder_lie_in_it(tmp_path):
    for n, name in enumerate(("03a01La", "03a01Fa", "03a01Wa")):
        put(tmp_path / f"{name}.wav", numbered(n))
    (tmp_path / "labels.yaml").write_text("labels:\n  bored: ~\n  happy: glad\n")
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


def test_speakers_of_two_corpora_are_told_apart(tmp_path):
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
    assert corpus.sources(tmp_path / "a,b") == [tmp_path / "a,b"]
    assert read(tmp_path / "a,b").clips["speaker"].to_list() == ["03"]
    assert corpus.sources("~/x, y") == [Path.home() / "x", Path("y")]


def test_two_parts_of_one_corpus_have_the_same_speakers(tmp_path):
    """The actors of RAVDESS sing, too; and a file that lies in both parts counts once."""
    put(tmp_path / "speech" / "03-01-03-01-01-01-03.wav")
    put(tmp_path / "song" / "03-02-03-01-01-01-03.wav", numbered(1))
    held = read(f"{tmp_path}/speech,{tmp_path}/song")
    assert held.clips["speaker"].to_list() == ["03", "03"]
    put(tmp_path / "more" / "03-01-03-01-01-01-03.wav", numbered(2))
    held = read(f"{tmp_path}/speech,{tmp_path}/more")
    assert len(held.clips) == 1
    assert held.problems["problem"].item().endswith("a second file of this name")


def test_manifests_of_one_name_are_refused(tmp_path):
    paths = [manifest(tmp_path / name, "path,speaker,emotion\nclips/0.wav,1,sad\n") for name in "ab"]
    with pytest.raises(
        CorpusError, match=r"a/mine\.csv and .*b/mine\.csv: both of corpus 'mine'.*rename one"
    ):
        read(f"{paths[0]},{paths[1]}")
    paths[1].write_text("path,speaker,emotion,corpus\nclips/0.wav,1,sad,other\n")
    assert read(f"{paths[0]},{paths[1]}").clips["speaker"].to_list() == ["mine:1", "other:1"]


def test_a_label_map_is_of_its_own_corpus(tmp_path):
    a = labelled(tmp_path / "a", "labels: {joy: happy, 01: null}")
    b = manifest(tmp_path / "b", "path,speaker,emotion\nclips/0.wav,1,joy\n", name="b.csv")
    clips = read(f"{a},{b}").clips
    assert clips["emotion"].to_list() == ["happy", "happy", "joy"]
    assert [row["clips"] for row in corpus.label_changes(f"{a},{b}")] == [1, 1]


# --- checks ----------------------------------------------------------------------------------------


def grid(speakers: int = 6, each: int = 4, emotions=("happy", "sad")) -> pd.DataFrame:
    """A clip table of as many clips of each emotion by each speaker."""
    rows = [(f"{s}{e}{n}", "mine", str(s), e) for s in range(speakers) for e in emotions for n in range(each)]
    clips = pd.DataFrame(rows, columns=["clip_id", "corpus", "speaker", "emotion"])
    return clips.assign(audio_sha256=clips["clip_id"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_speaks_against_a_whole_grid(protocol):
    assert doubts(grid(), protocol) == []


def test_one_speaker_is_doubted_where_speakers_are_kept_apart():
    clips = grid(speakers=1, each=12)
    for protocol in ("actors5", "loso"):
        (doubt,) = doubts(clips, protocol)
        assert doubt.startswith(f"1 speaker(s): {protocol} tests on unheard speakers")
        assert doubt.endswith("add recordings of others")
    assert doubts(clips, "random") == []


def test_a_class_of_two_clips_is_doubted():
    clips = grid(emotions=("happy", "sad", "angry"))
    few = clips.drop(clips.index[clips["emotion"] == "angry"][2:])
    for protocol in PROTOCOLS:
        (doubt,) = doubts(few, protocol)
        assert doubt.startswith("angry: 2 clip(s), at least 10 are needed; add some, or leave the label out")


def test_a_class_of_few_speakers_is_doubted():
    clips = grid(each=20, emotions=("happy", "sad", "angry"))
    of_two = clips[(clips["emotion"] != "angry") | clips["speaker"].isin(["2", "4"])]
    assert doubts(of_two)[0].startswith("angry: only of 2, 4, at least 3 speakers are needed")
    assert doubts(of_two, "random") == []


def test_a_class_that_no_other_fold_teaches_is_doubted():
    """Three actors whom the published folds test together; each alone, the others teach it."""
    clips = grid(speakers=6, each=20, emotions=("happy", "sad", "angry")).assign(corpus="ravdess")
    clips["speaker"] = clips["speaker"].replace(
        dict(zip("012345", ("02", "05", "14", "01", "03", "24"), strict=True))
    )
    alone = clips[(clips["emotion"] != "angry") | clips["speaker"].isin(["02", "05", "14"])]
    assert doubts(alone) == [
        "angry: a fold tests all speakers that say it; add recordings of others, or use protocol=loso"
    ]
    assert doubts(alone, "loso") == []
    assert doubts(alone.assign(corpus="mine")) == []


def test_clips_that_contradict_each_other_are_doubted():
    clips = grid()
    twins = clips.assign(audio_sha256=["same"] * 2 + list(clips["clip_id"][2:]))
    assert doubts(twins) == []
    twins.loc[1, "emotion"] = "sad"
    assert doubts(twins) == [
        "0happy0 and 0happy1: the same samples, but emotion happy and sad; correct one, or take both out"
    ]
    twins.loc[1, ["emotion", "speaker"]] = ["happy", "5"]
    assert "speaker 0 and 5" in doubts(twins)[0]


def test_labels_and_speakers_that_may_be_confused_are_doubted():
    clips = grid(each=20)
    clips.loc[clips.index[::2], "emotion"] = clips["emotion"][::2].str.title() + " "
    assert [doubt.split(" differ")[0] for doubt in doubts(clips)] == [
        "'Happy ' and 'happy'",
        "'Sad ' and 'sad'",
    ]
    clips = grid()
    clips.loc[clips.index[:5], "corpus"] = "other"
    assert doubts(clips)[0].startswith("speaker 0 is in other and mine and taken for one person")
    sung = grid().assign(corpus=["ravdess", "ravdess-song"] * 24)
    assert doubts(sung, "loso") == []


def test_what_is_described(tmp_path):
    path = manifest(
        tmp_path, "path,speaker,gender,emotion\nclips/0.wav,ann,female,happy\nclips/1.wav,bob,male,sad\nclips/2.wav,ann,female,sad\n"
    )  # fmt: skip
    put(tmp_path / "clips" / "2.wav", numbered(1))
    found = read(path).describe()
    assert found["speakers"]["ann"] == {"corpus": "mine", "gender": "female", "clips": {"happy": 1, "sad": 1}}
    assert found["emotions"]["happy"] == {"clips": 1, "speakers": 1, "fewest": 0, "most": 1}
    assert found["duplicates"] == [["clips/1", "clips/2"]]
    assert found["sample_rates"] == {"16000": 3}
    assert found["duration_s"]["max"] == 1.2
    json.dumps(found)
    asked = {"source": "a b.csv", "protocol": "loso", "asked": ["happy", "sad"], "labels": [], "doubts": []}
    text = corpus.told(found | asked)
    assert "sample-identical: clips/1, clips/2" in text
    assert "-p 'corpus=a b.csv' -p emotions=happy,sad -p protocol=loso" in text


def test_a_long_list_of_speakers_is_cut(monkeypatch):
    clips = grid(speakers=9).assign(gender="unknown", duration_s=1.0, sample_rate=8_000, channels=1)
    monkeypatch.setattr(corpus, "SHOWN", 4)
    found = corpus.Corpus(clips, pd.DataFrame(columns=["path", "problem"])).describe()
    rest = {"source": "x", "protocol": "loso", "asked": [], "labels": [], "doubts": ["odd"]}
    lines = corpus.told(found | rest).splitlines()
    assert "… and 5 more (--json has all)" in lines
    assert sum(line.endswith("  4    4") for line in lines) == 4
    assert lines[-2:] == ["A report under loso could not be trusted:", "- odd"]


# --- where the audio is ----------------------------------------------------------------------------


def test_the_folder_named_comes_before_the_environment_and_the_download(tmp_path, monkeypatch):
    named, environment = tmp_path / "named", tmp_path / "environment"
    downloaded = tmp_path / "data" / "ravdess"
    monkeypatch.setattr(corpus, "ROOT", tmp_path)
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


def test_ravdess_is_the_published_grid(ravdess):
    """Facts of the published corpus, found by reading every sample; the pair is a copy by mistake."""
    held = corpus.read(ravdess)
    clips = held.clips
    assert check_ravdess_grid(clips) == ([], [])
    assert held.problems.empty
    assert sorted(held.stereo["clip_id"]) == [
        "03-01-02-01-01-02-01", "03-01-02-01-02-02-05", "03-01-03-01-02-01-20",
        "03-01-06-01-01-02-20", "03-01-08-01-02-02-01",
    ]  # fmt: skip
    assert sorted(held.duplicates["clip_id"]) == ["03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]
    assert set(clips["sample_rate"]) == {48_000}
    assert clips["duration_s"].agg(["min", "mean", "max"]).round(2).tolist() == [2.94, 3.70, 5.27]
    assert clips.groupby("speaker").size().tolist() == [60] * 24
    assert clips["emotion"].value_counts().to_dict() == dict.fromkeys(EIGHT[1:], 192) | {"neutral": 96}
    assert clips["gender"].value_counts().to_dict() == {"male": 720, "female": 720}


def test_emodb_has_ten_speakers(emodb):
    clips = corpus.read(emodb).clips
    assert clips["speaker"].nunique() == 10
    assert set(clips["emotion"]) >= {"angry", "neutral", "happy", "sad"}
    assert clips.groupby("speaker")["gender"].first().value_counts().to_dict() == {"male": 5, "female": 5}
