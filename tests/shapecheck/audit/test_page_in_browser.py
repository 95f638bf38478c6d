"""The page in a real browser: nothing fails, nothing is loaded, it fits a phone and paper, and it can be filtered."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("jinja2")
pytest.importorskip("playwright.sync_api")

from overviews import HOSTILE, OVERVIEWS

from shapecheck.audit import page

pytestmark = pytest.mark.slow

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    paths = {name: folder / f"{name}.html" for name in OVERVIEWS}
    for name, path in paths.items():
        path.write_text(page(OVERVIEWS[name]()), encoding="utf-8")
    return paths


@pytest.fixture
def opened(browser: Any, files: dict[str, Path]) -> Iterator[Open]:
    """Opens a page; whatever went wrong or was loaded meanwhile is refused at the end."""
    contexts, wrong = [], []

    def open_page(name: str, fragment: str = "", **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        shown = contexts[-1].new_page()
        own = files[name].as_uri()
        shown.on("console", lambda message: wrong.append(f"console: {message.text}"))
        shown.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        shown.on(
            "request", lambda request: request.url.partition("#")[0] == own or wrong.append(f"request: {request.url}")
        )
        shown.goto(f"{own}{fragment}")
        return shown

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def cards(shown: Any) -> list[str]:
    return shown.locator(".card:visible h3 code").all_inner_texts()


STICKING_OUT = """() => [...document.querySelectorAll('body *')]
    .filter(one => !one.closest('.scroll, .skip') && one.getBoundingClientRect().right > innerWidth + 1)
    .map(one => one.outerHTML.slice(0, 99))"""


@pytest.mark.parametrize("name", OVERVIEWS)
def test_nothing_sticks_out_at_the_side(opened: Open, name: str) -> None:
    shown = opened(name)
    shown.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    for width in (360, 768, 1280):
        shown.set_viewport_size({"width": width, "height": 800})
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.evaluate(STICKING_OUT) == []


def test_the_watch_for_failures_can_fail(browser: Any) -> None:
    wrong = []
    shown = browser.new_page()
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.set_content("<script>throw new Error('noticed')</script>")
    shown.close()
    assert wrong == ["noticed"]


def test_the_filter_shows_what_mentions_all_words(opened: Open) -> None:
    shown = opened("small")
    assert len(cards(shown)) == 5
    shown.get_by_role("searchbox").fill("lens nowhere")
    assert cards(shown) == []
    shown.get_by_role("searchbox").fill("LENS blind")
    assert cards(shown) == ["Lens.apply"]
    assert shown.locator("output").inner_text() == "1 of 5 shown"
    shown.get_by_role("searchbox").fill("")
    assert len(cards(shown)) == 5


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("with holes", ["shift"]),
        ("with blind spots", ["Lens.apply"]),
        ("not exercised", ["load"]),
        ("not measured", ["N"]),
        ("with coincidences", []),
    ],
)
def test_the_choice_shows_what_has_findings_of_one_kind(opened: Open, kind: str, names: list[str]) -> None:
    shown = opened("small")
    shown.get_by_role("combobox").select_option(label=kind)
    assert cards(shown) == names


def test_the_slash_key_leads_to_the_filter(opened: Open) -> None:
    shown = opened("small")
    shown.keyboard.press("/")
    shown.keyboard.type("load")
    assert cards(shown) == ["load"]


def test_all_can_be_opened_and_folded(opened: Open) -> None:
    shown = opened("large")
    folds = shown.locator(".card > details[open]")
    assert folds.count() == 3
    shown.get_by_role("button", name="Open all").click()
    assert folds.count() == 200
    shown.get_by_role("button", name="Fold all").click()
    assert folds.count() == 0


def test_a_link_to_a_boundary_opens_it_even_if_it_was_filtered_away(opened: Open) -> None:
    shown = opened("large", "#boundary-big.m7.f24")
    card = shown.locator("[id='boundary-big.m7.f24']")
    assert card.locator(".body").is_visible()
    shown.get_by_role("searchbox").fill("big.m0.f0 nothing")
    shown.evaluate("location.hash = '#boundary-big.m3.f1'")
    shown.wait_for_function("document.querySelector(\"[id='boundary-big.m3.f1'] .body\").checkVisibility()")


@pytest.mark.parametrize("name", OVERVIEWS)
def test_without_script_everything_is_visible_and_nothing_that_does_not_work(opened: Open, name: str) -> None:
    shown = opened(name, java_script_enabled=False)
    assert shown.locator(".body:visible").count() == shown.locator(".card").count()
    assert shown.locator("svg.flow:visible").count() == shown.locator("svg.flow").count()
    assert not shown.locator("form.filter").is_visible()


def test_a_box_that_has_the_focus_lights_up_with_its_neighbours(opened: Open) -> None:
    shown = opened("small")
    shown.locator(".flow a[href='#boundary-lab.optics.shift']").focus()
    assert shown.locator(".flow.lit").count() == 1
    assert shown.locator(".flow .edge.near").count() == 2
    near = shown.locator(".flow .node.near title").all_text_contents()
    assert sorted(near) == ["lab.optics.Lens.apply", "lab.optics.shift", "lab.scan.group"]
    shown.locator(".flow a[href='#boundary-lab.scan.group']").hover()
    assert shown.locator(".flow .edge.near").count() == 2
    shown.keyboard.press("/")
    assert shown.locator(".flow.lit").count() == 0


def test_the_text_of_the_picture_can_be_selected(opened: Open) -> None:
    shown = opened("small")
    text = shown.locator(".flow .edge text").first
    text.evaluate("one => getSelection().selectAllChildren(one)")
    assert shown.evaluate("String(getSelection())") == text.text_content()


def test_a_hostile_name_runs_nothing(opened: Open) -> None:
    shown = opened("hostile")
    shown.on("dialog", lambda dialog: pytest.fail(dialog.message))
    assert shown.title() == f"Contracts of {HOSTILE}"
    assert shown.locator("script").count() == 1


def test_the_policy_of_the_page_stops_a_script_that_gets_in(
    browser: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt.html"
    source = files["small"].read_text(encoding="utf-8")
    spoilt.write_text(
        source.replace("<main>", "<main><script>document.title = 'taken over'</script>"), encoding="utf-8"
    )
    shown = browser.new_page()
    shown.goto(spoilt.as_uri())
    assert shown.title() == "Contracts of lab"
    assert shown.locator(".card:visible").count() == 5
    shown.close()


CONTRAST = """() => {
  const parse = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => { const [r, g, b] = parse(colour).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = one => { for (; one; one = one.parentElement) { const c = getComputedStyle(one).backgroundColor;
    if (parse(c).length < 4 || parse(c)[3] > 0) return c; } return 'rgb(255, 255, 255)'; };
  return [...document.querySelectorAll('h1,h2,h3,p,li,dt,dd,td,th,a:not(svg a),code,.badge,.score,.contract div,svg text')]
    .filter(one => one.checkVisibility() && one.textContent.trim()).map(one => {
      const style = getComputedStyle(one), inside = one.namespaceURI.endsWith('svg');
      const pair = [light(inside ? style.fill : style.color), light(ground(one))].sort((a, b) => b - a);
      return [(pair[0] + .05) / (pair[1] + .05), one.tagName + '.' + one.className + ' ' + one.textContent.slice(0, 30)]; });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(opened: Open, scheme: str) -> None:
    measured = opened("small", color_scheme=scheme).evaluate(CONTRAST)
    assert len(measured) > 50
    assert [what for ratio, what in measured if ratio < 4.5] == []


def test_the_dark_scheme_is_dark(opened: Open) -> None:
    grounds = [
        opened("small", color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    sums = [sum(map(int, re.findall(r"\d+", ground)[:3])) for ground in grounds]
    assert sums[0] > 700
    assert sums[1] < 100


@pytest.mark.parametrize("name", ["small", "hostile"])
def test_it_is_printed_on_white_with_everything_open(opened: Open, name: str) -> None:
    shown = opened(name, color_scheme="dark")
    paper = shown.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) >= (2 if name == "small" else 1)
    shown.emulate_media(media="print", color_scheme="dark")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not shown.locator("form.filter").is_visible()
    shown.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert shown.locator(".body:visible").count() == shown.locator(".card").count()


def test_no_card_row_or_picture_is_wider_than_the_paper(opened: Open) -> None:
    shown = opened("large", viewport={"width": 690, "height": 1000})  # A4 without its margins
    shown.emulate_media(media="print")
    shown.evaluate("dispatchEvent(new Event('beforeprint'))")
    widest = "Math.max(...[...document.querySelectorAll('svg.flow, table, .card, .contract')].map(one => one.getBoundingClientRect().right))"
    assert shown.evaluate(widest) <= 690
