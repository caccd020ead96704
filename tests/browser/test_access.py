"""What anyone must be able to use: axe-core finds nothing serious, nothing scrolls sideways."""

import json

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.steps import encoded, upload
from tests.phantom import chest_phantom

SERIOUS = {"serious", "critical"}


def violations(page) -> list[str]:
    """id, impact and first place of each serious violation of WCAG 2.1 A and AA."""
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{v['id']} ({v['impact']}, {len(v['nodes'])}): {json.dumps(v['nodes'][0]['html'])[:160]}"
        for v in found
        if v["impact"] in SERIOUS
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_violation(page, address, theme):
    page.goto(f"{address}?__theme={theme}")
    page.wait_for_selector("#compare", timeout=60_000)
    assert violations(page) == []
    page.get_by_label("Go on to the exact map").uncheck()
    upload(page, "film.png", encoded(chest_phantom(), "PNG"), "image/png")
    page.click("#compare")
    page.wait_for_selector("#progress p.progress >> nth=1", timeout=120_000)
    page.wait_for_timeout(800)  # colours of buttons fade
    assert violations(page) == []
    for name in (
        "Difference",
        "Try to fool it",
        "Temperature",
        "Export",
        "Teach",
        "Batch",
        "About",
    ):
        page.get_by_role("tab", name=name, exact=True).click()
        page.wait_for_timeout(800)
        assert violations(page) == [], name


def test_nothing_scrolls_sideways_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    upload(page, "film.png", encoded(chest_phantom(), "PNG"), "image/png")
    page.click("#compare")
    page.wait_for_selector("#student-heatmap img", state="attached", timeout=120_000)
    for name in ("Slider", "Difference", "Try to fool it", "Temperature", "Export", "Batch"):
        tab = page.get_by_role("tab", name=name, exact=True)
        if not tab.is_visible():  # gradio folds tabs that do not fit into a menu
            page.locator(".overflow-menu button:visible").last.click()
            tab = page.get_by_text(name, exact=True).last
        tab.click()
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name


def test_focus_shows_on_every_control(page):
    page.keyboard.press("Tab")
    for _ in range(12):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.tagName, s.outlineStyle, s.outlineWidth, s.boxShadow]; }"
        )
        assert style[0] == "BODY" or style[1] != "none" or style[3] != "none", style
