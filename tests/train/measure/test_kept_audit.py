"""`train.measure.kept_audit`: what comes back is what was kept, and what cannot be used is named."""

import numpy as np
import pytest

from tests.train.measure.films import CXR
from train.measure.films import masked_films
from train.measure.kept import ResultsError, read_tensors, relative, write_tensors
from train.measure.kept_audit import MIN_FILMS, AuditFilms, AuditResults, KeptAudit


def answers(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(36, 3))


@pytest.fixture
def kept(write_films, tmp_path) -> AuditResults:
    """The films, a student, a teacher and the forest."""
    results = AuditResults.of(CXR, tmp_path / "results")
    masked_films(write_films()).kept().write(results.folder / "audit.csv")
    for key, role in (("a-student", "student"), ("b-teacher", "teacher"), ("forest", "forest")):
        KeptAudit(
            key, f"the {role}", role, "ab",
            versions={"whole": answers(0), "crop": answers(1)},
            fills={"grey": {"no_box": answers(2)}, "black": {"no_box": answers(3)}},
            swaps={"same": answers(4)}, trained_on=7,
        ).write(results.folder / "audit")  # fmt: skip
    return results


def test_answers_are_read_as_they_were_written_teachers_first(kept):
    assert kept.there
    assert [audit.key for audit in kept.audits] == ["b-teacher", "a-student", "forest"]
    audit = kept.audits[0]
    assert (audit.name, audit.role, audit.sha256) == ("the teacher", "teacher", "ab")
    assert audit.trained_on == 7
    found = [
        audit.versions["whole"], audit.versions["crop"], audit.fills["grey"]["no_box"],
        audit.fills["black"]["no_box"], audit.swaps["same"],
    ]  # fmt: skip
    assert len(audit.tensors()) == len(found)
    for seed, logits in enumerate(found):
        assert logits == pytest.approx(relative(answers(seed)), abs=4e-3)


def test_where_there_was_no_audit_nothing_is_there(tmp_path):
    results = AuditResults.of(CXR, tmp_path)
    assert not results.there
    with pytest.raises(ResultsError, match=r"audit\.csv is no table of the audit's films"):
        _ = results.films


def test_films_and_donors_are_read_as_they_were_written(write_films, tmp_path):
    manifest = write_films((12, MIN_FILMS - 1, 12))
    kept = masked_films(manifest).kept()
    kept.write(tmp_path / "audit.csv")
    found = AuditFilms.read(tmp_path / "audit.csv", CXR)
    assert found.same_as(kept) and found.task == kept.task
    assert (found.notes, len(found.left_out)) == (kept.notes, 9)


def test_logits_of_fewer_films_are_said(kept):
    file = kept.folder / "audit" / "forest.safetensors"
    tensors, about = read_tensors(file)
    write_tensors(file, tensors | {"crop": tensors["crop"][1:]}, about)
    with pytest.raises(ResultsError, match=r"forest.* has 35 x 3 logits on 'crop', but audit\.csv"):
        _ = kept.audits


@pytest.mark.parametrize("change", [
    lambda text: text.replace("donor_other", "donor"),
    lambda text: text.replace("test-covid-3.png,covid", "other.png,covid"),  # somebody's donor
    lambda text: text.replace(",covid,", ",cowid,"),
])  # fmt: skip
def test_a_table_of_films_that_is_none_is_named(kept, change):
    file = kept.folder / "audit.csv"
    file.write_text(change(file.read_text()))
    with pytest.raises(ResultsError, match=r"again with python -m train audit --task cxr --write"):
        _ = kept.films


def test_a_file_that_lacks_what_an_audit_says_of_itself_is_named(kept):
    file = kept.folder / "audit" / "forest.safetensors"
    tensors, about = read_tensors(file)
    write_tensors(file, tensors, {k: v for k, v in about.items() if k != "role"})
    with pytest.raises(
        ResultsError, match=r"forest\.safetensors is damaged .* run the audit again"
    ):
        _ = kept.audits
