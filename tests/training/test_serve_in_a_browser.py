"""The page of `imnetprep serve` in Debian's chromium: mouse, keyboard, clipboard, a phone."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.training.checkpoint import load_checkpoint, save_checkpoint
from imnetprep.training.runs import Run as TrainingRun
from tests.training.served import Site, learn, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")

HOSTILE = "<img src=x onerror=alert(1)>"


# A drawn PNG reaches the page in an event, as by the mouse or from the clipboard.
_GIVEN = """async ([kind, event, field]) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 40;
  const body = await new Promise(done => canvas.toBlob(done));
  const data = new DataTransfer();
  data.items.add(new File([body], `${kind}.png`, { type: "image/png" }));
  document.body.dispatchEvent(
    new window[event](kind, { [field]: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return learn(tmp_path_factory.mktemp("learned"))


@pytest.fixture(scope="module")
def site(learned: Root, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A network of which one class has a name that would be a tag."""
    checkpoint = load_checkpoint(TrainingRun(learned.run("r")).best)
    classes = replace(checkpoint.classes, names=(HOSTILE, *checkpoint.classes.names[1:]))
    path = tmp_path_factory.mktemp("network") / "c.pt"
    save_checkpoint(path, replace(checkpoint, classes=classes))
    with serving(path, learned) as each:
        yield each


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed here")
    with api.sync_playwright() as playwright:
        # Its sandbox does not start as root, as tests in a container are run.
        yield playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])


class Visit:
    """A page that was opened, and all that it asked for and complained of."""

    def __init__(self, page: "Page", site: Site) -> None:
        self.page, self.complaints = page, list[str]()
        self.addresses = list[str]()
        page.on("request", lambda request: self.addresses.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        # From the first listener on choosers are caught; a key may come before that is in force.
        page.on("filechooser", lambda _chooser: None)
        page.goto(site.address)
        page.locator("#tiles figure").nth(2).wait_for()

    def answer(self, number: int = 0) -> "Locator":
        """The card of a picture, once it is answered or refused."""
        card = self.page.locator("article").nth(number)
        api.expect(card).to_have_attribute("aria-busy", "false")
        return card


@pytest.fixture
def visit(browser: "Browser", site: Site) -> Iterator[Visit]:
    with browser.new_context(viewport={"width": 1100, "height": 800}) as context:
        yield Visit(context.new_page(), site)


@pytest.fixture(scope="module")
def photos(learned: Root, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An image of each class; the name of the first would be a tag."""
    folder = tmp_path_factory.mktemp("photos")
    names = (f"{HOSTILE}.jpg", "b.jpg", "c.jpg")
    for label, name in enumerate(names):
        shutil.copy(min(learned.path.glob(f"val/n1000000{label}/*")), folder / name)
    return [folder / name for name in names]


def test_pictures_and_what_is_none_are_each_answered(
    visit: Visit, site: Site, photos: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    visit.page.set_input_files("#files", [*photos, tmp_path / "notes.txt"])
    for number, photo in enumerate(photos):
        card = visit.answer(number)
        assert card.locator("h2").inner_text() == photo.name
        best = site.ask("/predict", photo.read_bytes()).json["best"]
        assert card.locator("li bdi").all_inner_texts() == [each["name"] for each in best]
        bars = card.get_by_role("meter")
        for at, each in enumerate(best):
            percent = f"{100 * each['probability']:.1f}"
            api.expect(bars.nth(at)).to_have_attribute("aria-valuenow", percent)
            api.expect(bars.nth(at)).to_have_attribute("aria-label", each["name"])
        pictures = card.locator("img")
        assert pictures.count() == 5, "the picture, what the network sees, three examples"
        for at in range(5):
            assert pictures.nth(at).evaluate("each => each.decode().then(() => each.naturalWidth)")
        widths = [bars.nth(at).locator("div").bounding_box() for at in range(3)]
        assert widths[0] and widths[2] and widths[0]["width"] > widths[2]["width"]
    alert = visit.answer(3).get_by_role("alert")
    assert alert.inner_text().startswith("the file is text, not an image; JPEG, PNG")
    api.expect(visit.page.get_by_role("status").first).to_have_text("4 of 4 answered")
    assert all(each.startswith((site.address, "data:", "blob:")) for each in visit.addresses)
    assert [each.split(":")[0] for each in visit.complaints] == ["Failed to load resource"]


def test_the_newest_pictures_come_first_dropped_or_pasted(visit: Visit, photos: list[Path]) -> None:
    visit.page.set_input_files("#files", photos[1])
    visit.answer()
    for kind, event, field in (
        ("paste", "ClipboardEvent", "clipboardData"),
        ("drop", "DragEvent", "dataTransfer"),
    ):
        visit.page.evaluate(_GIVEN, [kind, event, field])
        assert visit.answer().locator("h2").inner_text() == f"{kind}.png"
        assert visit.answer().locator("li").count() == 3
    names = visit.page.locator("article h2").all_inner_texts()
    assert names == ["drop.png", "paste.png", "b.jpg"]
    assert visit.complaints == []


def test_the_keyboard_does_it_all(visit: Visit, photos: list[Path]) -> None:
    keyboard, page = visit.page.keyboard, visit.page
    keyboard.press("Tab")
    files = page.get_by_label("choose them")
    api.expect(files).to_be_focused()
    assert page.locator("#zone").evaluate("zone => getComputedStyle(zone).outlineStyle") == "solid"
    with page.expect_file_chooser() as opened:
        keyboard.press("Enter")
    assert opened.value.is_multiple()
    opened.value.set_files(photos[:2])
    assert visit.answer(1).locator("li").count() == 3
    keyboard.press("Tab")
    search = page.get_by_role("searchbox", name="Search classes")
    api.expect(search).to_be_focused()
    keyboard.type("CLASS 77")
    api.expect(page.get_by_text("0 of 3", exact=True)).to_be_visible()
    search.fill("n10000002 class")
    api.expect(page.locator("#tiles figure:visible")).to_have_count(1)
    assert page.locator("#tiles figure:visible bdi").inner_text() == "class 2"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_without_scrolling_sideways(
    scheme: Literal["light", "dark"], browser: "Browser", site: Site, photos: list[Path]
) -> None:
    with browser.new_context(
        viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True, color_scheme=scheme
    ) as context:
        visit = Visit(context.new_page(), site)
        api.expect(visit.page.get_by_text("Drop pictures")).to_be_hidden()
        camera = visit.page.get_by_label("Take a photo")
        api.expect(camera).to_have_attribute("capture", "environment")
        camera.set_input_files(photos[0])
        api.expect(visit.answer().locator("li")).to_have_count(3)
        widths = "document => [document.scrollingElement.scrollWidth, innerWidth]"
        assert visit.page.evaluate_handle("document").evaluate(widths) == [360, 360]
        ink = visit.page.evaluate("getComputedStyle(document.body).color")
        assert ink == {"light": "rgb(29, 35, 43)", "dark": "rgb(230, 233, 238)"}[scheme]
        assert visit.complaints == []


def test_a_server_that_is_gone_is_told(
    browser: "Browser", learned: Root, photos: list[Path]
) -> None:
    with browser.new_context() as context:
        with serving(TrainingRun(learned.run("r")).best, learned) as site:
            visit = Visit(context.new_page(), site)
        visit.page.set_input_files("#files", photos[1])
        alert = visit.answer().get_by_role("alert")
        assert alert.inner_text().startswith("the server does not answer; is imnetprep serve")
