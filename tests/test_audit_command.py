"""`hf-sat audit`: what it reads, what it leaves, and what it says to data that cannot be audited."""

import csv
import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from animals import ANIMALS, rows, save_encoder

from hf_sat.cli import main
from hf_sat.confident_joint import COUNTED_VISIT
from hf_sat.tasks import audit as audit_module
from hf_sat.tasks import audit_stopping
from hf_sat.tasks.audit_data import audit_data
from hf_sat.tasks.audit_labels import warn_of_slips
from hf_sat.tasks.audit_options import FEWEST_EPOCHS, AuditOptions, read_audit_options
from hf_sat.tasks.audit_output import visible
from hf_sat.tasks.audit_sources import read_table
from hf_sat.tasks.audit_training import default_epochs, settings
from hf_sat.tasks.offline import no_network


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """The command takes the idle cores, which would stay with the tests after it."""
    monkeypatch.setattr(audit_module, "use_idle_cores", lambda: None)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(str(tmp_path_factory.mktemp("encoder")))


def reviews(n: int = 120) -> pd.DataFrame:
    """Rows with a label that the first word tells; rows 5, 50 and 70 are wrong, 10 has no label and 11 no text."""
    frame = rows(n)[["review", "animal"]].rename(columns={"review": "text", "animal": "label"})
    for row in (5, 50, 70):
        frame.loc[row, "label"] = ANIMALS[(ANIMALS.index(frame.loc[row, "label"]) + 1) % 3]
    frame.loc[10, "label"] = frame.loc[11, "text"] = ""
    return frame


def load(path, **flags):
    options = AuditOptions(str(path), **flags)
    table = read_table(options)
    return table, audit_data(table, options)


def command(data, encoder, out, *flags: str) -> int:
    run = ["--model", encoder, "--epochs", "12", "--learning-rate", "3e-3", "--freeze-layers", "0", "--cpu"]
    return main(["audit", str(data), "--out", str(out), *run, *flags])


# ---- the command ----------------------------------------------------------------------------------------------------


def test_audit_end_to_end(encoder, tmp_path, capsys):
    data, out, fixed = tmp_path / "reviews.csv", tmp_path / "report", tmp_path / "fixed.csv"
    reviews().to_csv(data, index=False)
    assert command(data, encoder, out, "--write-corrected", str(fixed)) == 0
    table = pd.read_parquet(out / "labels.parquet")
    assert len(table) == 118 and not {10, 11} & set(table["sample_id"])
    assert set(table.nsmallest(3, "label_quality")["sample_id"]) == {5, 50, 70}
    assert table["text"].tolist() == reviews()["text"][table["sample_id"]].tolist()
    assert table["given_class"].tolist() == reviews()["label"][table["sample_id"]].tolist()
    assert pd.read_csv(out / "skipped.csv")["sample_id"].tolist() == [10, 11]

    corrected, given = pd.read_csv(fixed, keep_default_na=False), reviews()
    issues = table[table["is_label_issue"]].set_index("sample_id")["corrected_class"]
    assert {5, 50, 70} <= set(issues.index)
    assert corrected["text"].tolist() == given["text"].tolist()
    assert corrected["given_label"].tolist() == given["label"].tolist()
    expected = [issues.get(row, label) for row, label in enumerate(given["label"])]
    assert corrected["label"].tolist() == expected and list(corrected) == ["text", "label", "given_label"]

    page = (out / "report.html").read_text(encoding="utf-8")
    assert "reviews.csv" in page and "http://" not in page.replace("http://www.w3.org", "")
    printed = capsys.readouterr().out
    assert all(
        word in printed for word in ("Estimated noise rate", "report.html", "2 rows skipped", "row 10: no label")
    )


def test_json_alone_is_on_stdout_and_the_limit_sets_the_status(encoder, tmp_path, capsys):
    data = tmp_path / "reviews.jsonl"
    reviews().to_json(data, orient="records", lines=True)
    assert command(data, encoder, tmp_path / "out", "--json", "--fail-above", "0.001") == 3
    result = json.loads(capsys.readouterr().out)
    assert (result["rows"], result["audited"], len(result["suspects"])) == (120, 118, 10)
    assert {row["sample_id"] for row in result["suspects"][:3]} == {5, 50, 70}
    rate = result["noise_rate"]
    assert 0 < rate["low"] <= rate["rate"] <= rate["high"] < 0.2
    assert all(os.path.exists(path) for path in result["files"].values())


def test_a_run_that_cannot_tell_says_so_and_passes_no_limit(encoder, tmp_path, capsys, monkeypatch):
    assert FEWEST_EPOCHS == COUNTED_VISIT
    monkeypatch.setattr("hf_sat.tasks.audit_options.FEWEST_EPOCHS", 1)
    data, out = tmp_path / "reviews.csv", tmp_path / "out"
    reviews().to_csv(data, index=False)
    flags = ["--epochs", "1", "--learning-rate", "1e-9"]
    assert command(data, encoder, out, *flags, "--fail-above", "0.5") == 3
    printed = capsys.readouterr()
    assert "118 labels audited; the noise rate is not known" in printed.out and "suspected to be" not in printed.out
    assert "too few passes to estimate the noise" in printed.err and "is not known, which may be above" in printed.err
    assert command(data, encoder, out, *flags, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["noise_rate"] is None and any("too few passes" in warning for warning in result["warnings"])


@pytest.fixture(scope="module")
def picture_folder(tmp_path_factory):
    """Red and green images in class folders, one of them no image, and a file beside them."""
    pillow = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, channel in {"red": 0, "green": 1}.items():
        (root / name).mkdir()
        for i in range(15):
            pixels = rng.integers(0, 60, (8, 8, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            pillow.fromarray(pixels).save(root / name / f"{i:02}.png")
    (root / "red" / "99.png").write_bytes(b"no image")
    (root / "notes.txt").write_text("x")
    return root


def test_folder_of_images(picture_folder, tmp_path, capsys):
    out, fixed = tmp_path / "out", tmp_path / "fixed.csv"
    flags = ["--epochs", "2", "--cpu", "--json", "--write-corrected", str(fixed)]
    assert main(["audit", str(picture_folder), "--out", str(out), *flags]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["audited"], result["classes"]) == (30, ["green", "red"])
    assert result["skipped"] == [{"row": 30, "reason": "no image that can be read (UnidentifiedImageError)"}]
    table = pd.read_parquet(out / "labels.parquet")
    assert [path.split(os.sep)[-2] for path in table["image"].str.replace("/", os.sep)] == table["given_class"].tolist()
    assert "1 files are no images" in captured.err and len(pd.read_csv(fixed)) == 31


# ---- what is refused ------------------------------------------------------------------------------------------------


def write(folder, **changes) -> str:
    """A good file, with columns replaced."""
    path = str(folder / "data.csv")
    rows(40)[["review", "animal"]].assign(**changes).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("changes", "flags", "words"),
    [
        ({"animal": "cat"}, "", ["every row has the label 'cat'"]),
        ({}, "--label anmal", ["--label 'anmal'", "Did you mean 'animal'"]),
        ({"more": "x", "review": "y"}, "--text more", ["--label", "name one of ['review', 'animal', 'more']"]),
        ({"animal": np.arange(40) / 3}, "", ["measurements"]),
        ({"animal": [f"id {i}" for i in range(40)]}, "", ["40 classes in 40 rows"]),
        ({"review": None}, "--label animal", ["only 0 of 40 rows"]),
        ({}, "--epohcs 3", ["--epohcs", "did you mean --epochs"]),
        ({}, "--epochs 0", ["--epochs 0.0", ">= 1"]),
        ({}, "--fail-above 5", ["--fail-above 5.0", "0.05 is 5 %"]),
        ({}, "--fail-above 0.1 --epochs 2", ["--fail-above 0.1", "--epochs 2 are too few", "give 3"]),
        ({}, "--write-corrected x.json", ["x.json", "end it in .csv"]),
        ({}, "--encoding utf-99", ["utf-99"]),
        ({}, "--model nowhere/at/all", ["--model 'nowhere/at/all'"]),
    ],
)
def test_wrong_input_has_status_2_and_says_why(changes, flags, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["audit", write(tmp_path, **changes), *flags.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and all(word in captured.err for word in words), captured.err


@pytest.mark.parametrize(
    "name", ["nowhere.csv", "folder", "data.xlsx", "empty.csv", "one.csv", "zero.csv", "no.parquet"]
)
def test_files_that_cannot_be_read(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    contents = {
        "data.xlsx": b"PK",
        "empty.csv": b"\n",
        "one.csv": b"only\nwords\n",
        "zero.csv": b"a\0b\0",
        "no.parquet": b"x",
    }
    for file, content in contents.items():
        (tmp_path / file).write_bytes(content)
    assert main(["audit", name]) == 2
    assert name in capsys.readouterr().err


def test_help_is_grouped_and_lists_the_exit_statuses(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["audit", "--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(word in printed for word in ("the data:", "the training run:", "what is left:", "Exit status: 0"))


# ---- files as they are found ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_csv_in_any_form_comes_back_as_it_was(encoding, delimiter, tmp_path):
    frame = reviews()
    frame.loc[0, "text"] = 'caf\xe9, "quoted"; a|b\nsecond line'
    path, fixed = tmp_path / "data.csv", tmp_path / "fixed.csv"
    frame.to_csv(path, index=False, encoding=encoding, sep=delimiter, lineterminator="\r\n")
    table, data = load(path)
    assert data.examples[0] == frame.loc[0, "text"] and data.names == sorted(ANIMALS)
    assert [skipped.row for skipped in data.skipped] == [10, 11] and data.rows[10] == 12
    assert bool(table.warnings) == (encoding == "cp1252")
    table.write(str(fixed), "label", {3: "dog"}, "given_label")
    back = pd.read_csv(fixed, sep=delimiter, encoding=encoding, keep_default_na=False)
    frame["given_label"] = frame["label"]
    frame.loc[3, "label"] = "dog"
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    assert b"\r" in fixed.read_bytes()


def test_stray_quotes_swallow_no_rows(tmp_path):
    lines = ["text\tlabel", '" hello , he said\ta', 'an "odd" one\tb', '"whole" words\ta', *["plain\tb"] * 30]
    path = tmp_path / "data.tsv"
    path.write_text("\n".join(lines))
    table, data = load(path)
    assert len(table) == 33 and data.examples[0] == '" hello , he said' and "quotes" in table.warnings[0]
    table.write(str(tmp_path / "fixed.tsv"), "label", {}, "given_label")
    assert (tmp_path / "fixed.tsv").read_text().splitlines()[1] == lines[1] + "\ta"


def test_rows_that_do_not_fit_are_listed_and_keep_their_number(tmp_path):
    lines = ["text, label", "fine, a", "too, many, b", "few", "", *["fine, b"] * 30]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(lines))
    table, data = load(path)
    assert {skipped.row: skipped.reason for skipped in data.skipped} == {
        1: "3 fields where the header has 2",
        2: "1 fields where the header has 2",
    }
    assert data.rows[:2].tolist() == [0, 3] and data.names == ["a", "b"]
    table.write(str(tmp_path / "fixed.csv"), "label", {0: "b"}, "given_label")
    with open(tmp_path / "fixed.csv", newline="") as file:
        assert list(csv.reader(file))[1:3] == [["fine", "b", "a"], ["too", "many", "b"]]


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_other_files_come_back_as_they_were(kind, tmp_path):
    frame = rows(40)[["review", "animal"]].assign(stars=[0, 1] * 20, when=1.5)
    path, fixed = str(tmp_path / f"data.{kind}"), str(tmp_path / f"fixed.{kind}")
    form = {"orient": "records", "lines": kind == "jsonl"}
    frame.to_parquet(path) if kind == "parquet" else frame.to_json(path, **form)
    table, data = load(path, text="review", label="stars")
    assert data.names == ["0", "1"] and data.written == [0, 1]
    table.write(fixed, "stars", {0: data.written[1]}, "given_stars")
    back = pd.read_parquet(fixed) if kind == "parquet" else pd.read_json(fixed, **form)
    frame["given_stars"] = frame["stars"]
    frame.loc[0, "stars"] = 1
    pd.testing.assert_frame_equal(back, frame)


def test_named_classes_of_a_parquet_file(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    source = datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(30)], "label": [0, 1, -1] * 10}, features)
    source.to_parquet(tmp_path / "data.parquet")
    table, data = load(tmp_path / "data.parquet")
    assert data.names == ["no", "yes"] and len(data.skipped) == 10 and data.written == [0, 1]
    table.write(str(tmp_path / "fixed.parquet"), "label", {0: 1}, "given_label")
    back = datasets.Dataset.from_parquet(str(tmp_path / "fixed.parquet"), cache_dir=str(tmp_path / "cache"))
    assert back.features["label"] == back.features["given_label"] == features["label"]
    source.save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved")[1].names == ["no", "yes"]


def test_a_broken_line_of_json_lines_is_skipped(tmp_path):
    lines = [json.dumps({"text": f"t {i}", "label": i % 2 == 0}) for i in range(30)]
    lines[4], lines[6] = '{"text": "cut of', '{"text": "half \\ud83d", "label": true}'
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    table, data = load(tmp_path / "data.jsonl")
    assert [skipped.row for skipped in data.skipped] == [4] and data.names == ["False", "True"]
    table.write(str(tmp_path / "fixed.jsonl"), "label", {}, "given_label")
    assert (tmp_path / "fixed.jsonl").read_text().splitlines()[4] == lines[4]
    back = read_table(AuditOptions(str(tmp_path / "fixed.jsonl")))
    assert back.rows[6]["text"] == "half \ud83d" and data.examples[5] == "half ?"


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([1.0, 2.0, 10.0], ["1", "2", "10"]),
        (["1.0", "2", "1"], ["1", "2"]),
        ([True, False, True], ["False", "True"]),
        ([-1, 0, 1], ["-1", "0", "1"]),
        (["b", "a", "nan"], ["a", "b"]),
    ],
)
def test_labels_become_classes(labels, names, tmp_path):
    pd.DataFrame({"text": ["a word", "more", "two"] * 20, "label": labels * 20}).to_csv(tmp_path / "d.csv", index=False)
    assert load(tmp_path / "d.csv")[1].names == names


def test_spellings_are_told_and_merged_where_asked(tmp_path):
    frame = pd.DataFrame({"text": ["one", "two"] * 15, "label": ["Good", "bad"] * 13 + ["good ", "BAD"] * 2})
    frame.to_csv(tmp_path / "d.csv", index=False)
    _, data = load(tmp_path / "d.csv")
    assert len(data.names) == 4 and "'Good' (13), 'good ' (2)" in data.warnings[0]
    _, merged = load(tmp_path / "d.csv", merge_case=True)
    assert merged.names == ["Good", "bad"] and "taken as one" in merged.warnings[0]


def test_repeated_texts_are_kept_and_told(tmp_path):
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(30)], "label": ["a", "b"] * 15})
    frame.loc[1, "text"] = frame.loc[3, "text"] = "text  0"
    frame.to_csv(tmp_path / "d.csv", index=False)
    _, data = load(tmp_path / "d.csv")
    assert (len(data.rows), data.repeats) == (30, 2)
    assert np.flatnonzero(data.contradictions).tolist() == [0, 1, 3]


def test_a_sample_keeps_the_row_numbers(tmp_path):
    reviews().to_csv(tmp_path / "d.csv", index=False)
    _, data = load(tmp_path / "d.csv", sample=30)
    assert len(data.rows) == 30 and data.examples == reviews()["text"][data.rows].tolist()


def test_columns_are_guessed(tmp_path):
    frame = rows(40).rename(columns={"review": "Sentence", "animal": "Sentiment"})
    frame.to_csv(tmp_path / "d.csv", index=False)
    _, data = load(tmp_path / "d.csv")
    assert (data.content, data.label) == ("Sentence", "Sentiment")
    frame[["Sentence", "stars"]].assign(stars=["x", "y"] * 20).set_axis(["zzz", "stars"], axis=1).to_csv(
        tmp_path / "d.csv", index=False
    )
    assert load(tmp_path / "d.csv")[1].content == "zzz"


# ---- the rest -------------------------------------------------------------------------------------------------------


def test_nothing_leaves_the_machine():
    import huggingface_hub

    before = os.environ.get("HF_HUB_OFFLINE"), huggingface_hub.constants.HF_HUB_OFFLINE
    with no_network():
        assert os.environ["HF_HUB_OFFLINE"] == "1" and huggingface_hub.is_offline_mode()
    assert (os.environ.get("HF_HUB_OFFLINE"), huggingface_hub.constants.HF_HUB_OFFLINE) == before


def test_the_network_is_shut_for_local_data_and_model_alone(tmp_path):
    path = write(tmp_path)
    assert read_audit_options([path]).is_local and not read_audit_options(["ag_news"]).is_local
    assert not read_audit_options([path, "--model", "bert-base-uncased"]).is_local


def test_few_rows_get_more_epochs():
    assert [default_epochs(rows, 16) for rows in (20, 400, 5000, 100_000)] == [12, 6, 4, 3]


@pytest.mark.parametrize("has, used", [("avx512_bf16", False), ("amx_bf16", True)])
def test_bfloat16_is_used_on_a_processor_that_gains_by_it(tmp_path, monkeypatch, has, used):
    reviews().to_csv(tmp_path / "reviews.csv", index=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {has: True})
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=8))
    options = AuditOptions(str(tmp_path / "reviews.csv"), cpu=True, out=str(tmp_path))
    assert settings(120, model, load(tmp_path / "reviews.csv")[1], options).bf16 is used


@pytest.mark.parametrize("flags, length", [([], "3 of 4 epochs"), (["--epochs", "4"], "4 epochs")])
def test_a_settled_run_ends_early_unless_its_length_is_named(encoder, tmp_path, monkeypatch, capsys, flags, length):
    monkeypatch.setattr(audit_stopping, "SETTLED", -1.0)  # any order counts
    reviews(610).to_csv(tmp_path / "reviews.csv", index=False)
    fast = ["--model", encoder, "--learning-rate", "3e-3", "--freeze-layers", "0", "--cpu", "--json"]
    assert main(["audit", str(tmp_path / "reviews.csv"), "--out", str(tmp_path / "out"), *fast, *flags]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["training"].startswith(f"{length}, ")
    assert set(pd.read_parquet(tmp_path / "out" / "labels.parquet")["n_visits"]) == {int(length[0])}


def test_text_cannot_move_the_cursor():
    assert visible("a\x1b[2Jb\nc\u202ed") == "a [2Jb c d"


def test_labels_that_read_like_a_slip_are_told():
    told = []
    warn_of_slips(["spam"] * 40 + ["ham"] * 40 + ["spamm", "Spam", "eggs"], told)
    assert told == ["labels that read like another one, misspelt: 'spamm' ('spam'?)."]
    warn_of_slips(["spam", "ham"] * 40, told)
    assert len(told) == 1
