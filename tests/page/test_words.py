"""`page.words`: the card claims no more than what was done."""

from dataclasses import replace

from kdmodels.predict import predict
from kdmodels.tasks import get_task
from page.words import card, doubts, verdict


def test_a_card_says_calibrated_only_where_a_temperature_is_set(tiny_classifier, photo):
    plain = card(tiny_classifier, predict(tiny_classifier, photo), 1.0)
    assert "calibrated" not in plain and "percentages as the network gives them" in plain
    row = replace(tiny_classifier.checkpoint, temperature=1.317)
    scaled = replace(tiny_classifier, checkpoint=row)
    text = card(scaled, predict(scaled, photo), 1.0)
    assert "percentages calibrated on validation images (temperature 1.32)" in text
    assert "as the network gives them" not in text


def test_a_students_card_says_what_is_known_of_its_teachers_file(tiny_classifier, photo):
    prediction = predict(tiny_classifier, photo)
    assert "learned from" not in card(tiny_classifier, prediction)
    row = replace(tiny_classifier.checkpoint, teacher="vgg19")
    text = card(replace(tiny_classifier, checkpoint=row), prediction)
    assert "; which file of its teacher it learned from was not recorded" in text
    row = replace(row, teacher_sha256="ab" * 32)
    text = card(replace(tiny_classifier, checkpoint=row), prediction)
    assert "; it learned from the file with the sha256 abababababab…" in text


def test_a_card_shows_the_calibrated_percentages(tiny_classifier, photo):
    row = replace(tiny_classifier.checkpoint, temperature=4.0)
    scaled = replace(tiny_classifier, checkpoint=row)
    prediction = predict(scaled, photo)
    assert f"<b>{max(prediction.probabilities):.0%}</b>" in card(scaled, prediction, 1.0)


def test_a_card_says_what_ran_and_what_is_not_counted(tiny_classifier, photo):
    prediction = predict(tiny_classifier, photo)
    text = card(tiny_classifier, prediction, decode_ms=12.4)
    engine = tiny_classifier.engine
    assert engine.name in text and f"{engine.threads} thread" in text
    assert f"not counted: decoding 12 ms, preprocessing {prediction.preprocess_ms:.0f} ms" in text
    assert '<p class="note">' not in text


def test_a_card_says_why_another_engine_ran(tiny_classifier, photo):
    prediction = predict(tiny_classifier, photo)
    note = "OpenVINO cannot be used (<broken>), so PyTorch took over."
    latency = replace(prediction.latency, note=note)
    text = card(tiny_classifier, replace(prediction, latency=latency))
    assert "(&lt;broken&gt;), so PyTorch took over." in text


def test_the_verdict_names_the_engine_or_both(make_classifier, photo):
    predictions = [predict(make_classifier(model), photo) for model in ("vgg19", "ofa_595")]
    ratio = predictions[0].latency.median_ms / predictions[1].latency.median_ms
    text = verdict(get_task("cxr"), *predictions)
    engine = predictions[0].latency.engine
    assert f"was {max(ratio, 1 / ratio):.1f} times as fast here ({engine})." in text
    other = replace(predictions[1], latency=replace(predictions[1].latency, engine="another"))
    assert f"here ({engine} against another)." in verdict(get_task("cxr"), predictions[0], other)


def test_doubts_are_a_list_in_which_nothing_is_markup():
    assert doubts(()) == ""
    text = doubts(("It is <blank>.", "Changed on reading: first of 3 frames used."))
    assert text.count("<li>") == 2 and "It is &lt;blank&gt;." in text and "first of 3" in text
