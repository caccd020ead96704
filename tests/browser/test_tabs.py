"""Teaching, batch and about in a real browser, and the named endpoints beside them."""

import csv
import io
import json
import re
import zipfile

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from tests.browser.steps import encoded, upload
from tests.phantom import chest_phantom


def film(seed: int) -> bytes:
    return encoded(chest_phantom(300 + 10 * seed, 320, seed), "PNG")


def case_set() -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        for number in range(3):
            archive.writestr(f"case{number}.png", film(number))
        labels = "case0.png,covid\ncase1.png;normal\ncase1.png,Normal\ncase2.png,nrmal\n"
        archive.writestr("cases.csv", "file,label\n" + labels)
    return stream.getvalue()


def put(page, field: str, *files: tuple[str, str, bytes]) -> None:
    page.set_input_files(
        f"{field} input[type=file]",
        [{"name": name, "mimeType": kind, "buffer": content} for name, kind, content in files],
    )
    page.wait_for_selector(f"{field} :text('{files[0][0].split('.')[0]}')", timeout=30_000)
    page.wait_for_timeout(1_000)


def test_a_round_of_teaching(page):
    page.get_by_role("tab", name="Teach").click()
    put(page, "#teach-files", ("set.zip", "application/zip", case_set()))
    page.click("#teach-start")
    page.wait_for_selector("#teach-question :text('Case 1 of 2')", timeout=60_000)
    assert "did you mean normal" in page.inner_text("#teach-message").lower()
    # Nothing gives the label away before the answer.
    assert page.locator("#teach-teacher img, #teach-student img").count() == 0
    assert "case" not in page.inner_text("#teach-question").replace("Case 1", "").lower()
    page.locator("#teach-choice").get_by_label("COVID-19", exact=True).click()
    page.click("#teach-vote")
    page.wait_for_selector("#teach-question :text('Votes: COVID-19 1')", timeout=10_000)
    page.click("#teach-reveal")
    page.wait_for_selector("#teach-question :text('You said COVID-19')", timeout=60_000)
    assert re.search(r"It is labelled (COVID-19|Normal)\.", page.inner_text("#teach-question"))
    assert page.locator("#teach-question .doubt").is_visible()
    for role in ("teacher", "student"):
        page.wait_for_selector(f"#teach-{role} img", timeout=60_000)
    assert re.search(r"You\s+[01] of 1\s+Teacher\s+[01] of 1", page.inner_text("#teach-score"))
    page.click("#teach-next")
    page.wait_for_selector("#teach-question :text('Case 2 of 2')", timeout=10_000)
    page.wait_for_selector("#teach-student img", state="detached", timeout=10_000)


def test_a_batch_of_twenty_and_a_row_that_opens(page):
    page.get_by_role("tab", name="Batch").click()
    files = [(f"film{n}.png", "image/png", film(n)) for n in range(19)]
    put(page, "#batch-files", *files, ("broken.png", "image/png", b"nothing"))
    page.click("#batch-run")
    page.wait_for_selector("#batch-csv:visible", timeout=200_000)
    assert "20 of 20 files" in page.inner_text("#batch-state")
    with page.expect_download() as download:
        page.click("#batch-csv")
    with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [name for name, *_ in files] + ["broken.png"]
    assert all(0 < float(row["teacher_probability"]) <= 1 for row in rows[:19])
    assert "not an image" in rows[19]["problem"] and not rows[19]["teacher"]
    assert all("chest X-ray" in row["doubt"] for row in rows[:19])  # a drawing is no film
    page.get_by_label("Only rows with a doubt").check()
    page.wait_for_selector("#batch-table :text('broken.png')", state="hidden", timeout=30_000)
    page.locator("#batch-table").get_by_text("film3.png").last.click()
    page.wait_for_selector("#message :text('330 × 320 px')", timeout=30_000)
    page.wait_for_selector("#verdict .verdict:not(.hint)", timeout=120_000)


def test_a_hostile_zip_is_refused_with_the_reason(page):
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        archive.writestr("../outside.png", film(0))
    page.get_by_role("tab", name="Batch").click()
    put(page, "#batch-files", ("outside.zip", "application/zip", stream.getvalue()))
    page.click("#batch-run")
    said = page.wait_for_selector("#batch-state [role=alert]", timeout=30_000).inner_text()
    assert "outside" in said


def test_about_tells_the_results_and_how_not_to_read_a_heatmap(page):
    page.get_by_role("tab", name="About").click()
    said = page.inner_text("#about")
    assert "does not show where disease is" in said and "Not a medical device" in said
    page.get_by_role("button", name="Chest X-ray: results").click()
    page.wait_for_selector("td:has-text('VGG19') >> visible=true", timeout=10_000)


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False)


@pytest.fixture
def film_file(tmp_path):
    path = tmp_path / "film.png"
    path.write_bytes(film(0))
    return handle_file(path)


def test_compare_endpoint(client, film_file):
    said = client.predict(film_file, "cxr", "vgg19", api_name="/compare")
    for role in ("teacher", "student"):
        shares = said[role]["probabilities"]
        assert set(shares) == {"covid", "pneumonia", "normal"}
        assert sum(shares.values()) == pytest.approx(1)
        assert said[role]["class"] == max(shares, key=shares.get)
        assert said[role]["latency_ms"]["median"] > 0
    assert "chest X-ray" in said["doubts"][0]  # a drawing is no film
    assert said["agree"] == (said["teacher"]["class"] == said["student"]["class"])


def test_explain_endpoint(client, film_file):
    wanted = (film_file, "cxr", "vgg19", "student", "normal", False)
    picture, about = client.predict(*wanted, api_name="/explain")
    assert len(about["doubts"]) == 1
    assert about["class"] == "normal" and 0 < about["channels"] < about["of"] == 1152
    assert all(0 <= value <= 1 for row in about["heatmap"] for value in row)
    with open(picture, "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_batch_endpoint(client, film_file):
    rows = client.predict([film_file], "cxr", "", api_name="/batch")
    assert len(rows) == 1 and rows[0]["file"] == "film.png" and not rows[0]["problem"]
    json.dumps(rows)


@pytest.mark.parametrize(
    ("task", "teacher", "sentence"),
    [
        ("mri", "", "There is no task 'mri'; the tasks are: cxr"),
        ("cxr", "resnet", "There is no teacher 'resnet'; the teachers are: vgg19"),
    ],
)
def test_endpoints_say_what_there_is(client, film_file, task, teacher, sentence):
    with pytest.raises(AppError, match=sentence):
        client.predict(film_file, task, teacher, api_name="/compare")


def test_only_the_named_endpoints_are_public(client):
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/compare", "/explain", "/batch"}


def test_an_endpoint_without_an_image_says_so(client):
    with pytest.raises(AppError, match="choose one image file"):
        client.predict(None, "cxr", "", api_name="/compare")


def test_uploading_into_one_tab_leaves_another_alone(page, browser, address):
    other = browser.new_page()
    other.goto(address)
    other.wait_for_selector("#compare", timeout=60_000)
    upload(page, "film.png", film(0), "image/png")
    other.click("#compare")
    said = other.wait_for_selector("#message [role=alert]", timeout=30_000).inner_text()
    assert "no image yet" in said
    other.close()
