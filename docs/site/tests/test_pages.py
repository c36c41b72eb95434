"""The pages in a real browser: they load, formulas are drawn, the lines are the source's, both languages, any width."""

import re
import shutil
import subprocess
import sys
from urllib.parse import unquote

import pytest
from conftest import ROOT, build

FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/agent.py"))


CARDS = """
Array.from(document.querySelectorAll(".card"), (card) => ({
  formulas: Array.from(card.querySelectorAll(".formula"), (each) => each.dataset.number),
  figures: Array.from(card.querySelectorAll("figure.code"), (figure) => [
    figure.dataset.path,
    Array.from(figure.querySelectorAll(".line"), (line) =>
      [Number(line.dataset.line), line.textContent, line.classList.contains("marked")]),
  ]),
}))
"""
COUNTS = "['.tex', '.tex .katex', '.katex-error'].map((each) => document.querySelectorAll(each).length)"
WIDER = "document.documentElement.scrollWidth - innerWidth"


def pages(folder):
    """Every page but the sources, as it is asked for."""
    files = (file.relative_to(folder) for file in folder.rglob("*.html"))
    return sorted(str(file) for file in files if file.parts[0] != "source")


@pytest.fixture(scope="module")
def visited(opened, address, folder):
    """{page: what a reader of it sees}, each opened once: at the desktop's width, then at a phone's."""
    found = {}
    with opened() as page:
        for each in pages(folder):
            page.set_viewport_size({"width": 1280, "height": 900})
            page.goto(f"{address}/{each}")
            found[each] = {"counts": page.evaluate(COUNTS), "cards": page.evaluate(CARDS)}
            page.set_viewport_size({"width": 360, "height": 740})
            found[each] |= {"wider": page.evaluate(WIDER), "problems": [*page.problems]}
            page.problems.clear()
    return found


def test_every_page_loads_draws_its_formulas_and_fits_a_phone(visited):
    assert len(visited) >= 2 * (len(FOLDERS) + 6)
    for each, seen in visited.items():
        formulas, drawn, wrong = seen["counts"]
        assert seen["problems"] == [] and seen["wider"] <= 0, each
        assert formulas == drawn and not wrong, each
    assert sum(seen["counts"][0] for seen in visited.values()) > 150


def test_every_source_page_loads(page, address, folder):
    for file in sorted((folder / "source").rglob("*.html")):
        page.goto(f"{address}/{file.relative_to(folder)}")
        assert page.problems == [], file
        text = page.text_content("pre.source-page")
        assert text == (ROOT / file.relative_to(folder / "source")).with_suffix("").read_text(encoding="utf-8") + "\n"


@pytest.mark.parametrize("prefix", ["", "zh/"])
@pytest.mark.parametrize("name", FOLDERS)
def test_the_lines_beside_a_formula_are_the_sources(visited, name, prefix):
    cards = visited[f"{prefix}{name}/index.html"]["cards"]
    assert len(cards) >= 3
    for card in cards:
        sources = [figure for figure in card["figures"] if not figure[0].startswith("tests/")]
        assert card["formulas"] and sources and len(card["figures"]) > len(sources), card["formulas"]
        for path, lines in card["figures"]:
            text = (ROOT / path).read_text(encoding="utf-8").splitlines()
            first = text[lines[0][0] - 1]
            indent = len(first) - len(first.lstrip())
            for number, shown, _ in lines:
                assert shown == text[number - 1][indent:] + "\n", f"{path}:{number}"
            marked = " ".join(text[number - 1] for number, _, mark in lines if mark)
            assert not marked or re.search(r"\d\.\d+", marked), f"{path}: {marked}"


def test_each_formula_has_its_card_and_the_book_map_leads_to_it(page, address, folder):
    text = (ROOT / "docs" / "site" / "formulas.toml").read_text(encoding="utf-8")
    wanted = {number.split(", ")[0] for number in re.findall(r'^\[?"((?:Algorithm )?\d[^"]+)"', text, re.M)}
    shown = set()
    for name in FOLDERS:
        shown |= set(re.findall(r'data-number="([^"]+)"', (folder / name / "index.html").read_text(encoding="utf-8")))
    assert wanted - shown == set()
    page.goto(f"{address}/book-map.html")
    page.click("text=(5.38)")
    page.wait_for_url("**/ppo/index.html#eq-5.38")
    assert page.evaluate("document.querySelector(':target').closest('.card').textContent").count("clip_by_value") == 1


def test_a_proof_is_one_click_away(page, address):
    page.goto(f"{address}/ppo/index.html")
    proof = page.locator("details", has_text="test_clip_loss_is_equation_5_38").first
    assert not proof.locator("pre").is_visible()
    proof.locator("summary").click()
    assert "def test_clip_loss_is_equation_5_38" in proof.locator("pre").text_content()
    proof.locator("figcaption a").click()
    assert re.search(r"/source/tests/test_ppo\.py\.html#L\d+$", page.url)
    assert "def test_clip_loss_is_equation_5_38" in page.locator(":target").text_content()


def test_every_link_leads_somewhere(folder):
    for each in pages(folder):
        file = folder / each
        for href in re.findall(r'(?:href|src)="([^"]+)"', file.read_text(encoding="utf-8")):
            target, _, anchor = unquote(href).partition("#")
            if "://" not in href and not href.startswith("data:"):
                place = (file.parent / target).resolve() if target else file
                assert place.is_file(), f"{each}: {href}"
                if anchor and "play/" not in target:
                    assert f'id="{anchor}"' in place.read_text(encoding="utf-8"), f"{each}: {href}"


def test_both_languages(page, address, folder):
    english = {each for each in pages(folder) if not each.startswith("zh/")}
    assert {each.removeprefix("zh/") for each in pages(folder)} == english
    for name in ("index.html", "trpo/index.html", "play/index.html"):
        page.goto(f"{address}/{name}")
        assert page.get_attribute("html", "lang") == "en" and not re.search("[一-鿿]", page.inner_text("main"))
        page.click("text=中文")
        assert page.url == f"{address}/zh/{name}"
        assert page.get_attribute("html", "lang") == "zh-CN" and re.search("[一-鿿]", page.inner_text("h1"))
        page.click("header >> text=English")
        assert page.url == f"{address}/{name}"
    page.goto(f"{address}/zh/CHANGELOG.html")  # there is no Chinese one, and a voice that reads it has to know
    assert page.get_attribute("main", "lang") == "en" and page.get_attribute("main .note", "lang") == "zh-CN"


def test_a_source_leads_to_the_start_of_the_other_language(page, address):
    page.goto(f"{address}/source/ppo/agent.py.html")
    page.click("text=中文")
    assert page.url == f"{address}/zh/index.html"


def test_the_menu_folds_where_there_is_no_room_for_it(page, address):
    """Turning a tablet must not leave it folded, with nothing to unfold it."""
    page.set_viewport_size({"width": 400, "height": 900})
    page.goto(f"{address}/ppo/index.html")
    assert not page.is_visible(".menu a >> nth=0")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_selector(".menu a >> nth=0")


def test_a_browser_that_keeps_nothing_shows_all_the_same(page, address):
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('', 'SecurityError'); } })"
    )
    page.goto(f"{address}/ppo/index.html")
    assert page.locator(".tex .katex").count() > 3
    before = page.get_attribute("html", "data-theme")
    page.click(".theme")
    assert page.get_attribute("html", "data-theme") != before


def test_light_and_dark(page, address):
    def paper():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page.emulate_media(color_scheme="dark")
    page.goto(f"{address}/ppo/index.html")
    dark = paper()
    page.focus(".theme")
    page.keyboard.press("Enter")
    assert paper() != dark
    chosen = paper()
    page.goto(f"{address}/zh/td3/index.html")
    assert paper() == chosen  # it is kept


@pytest.mark.parametrize("prefix, words, place", [("", "clipped objective", "/ppo/"), ("zh/", "共轭梯度", "/zh/trpo/")])
def test_search_by_keyboard_alone(page, address, prefix, words, place):
    page.goto(f"{address}/{prefix}index.html")
    page.keyboard.press("/")
    page.keyboard.type(words)
    page.wait_for_selector(".found a")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: place in url)


@pytest.mark.parametrize("prefix, words", [("", "actor"), ("zh/", "行动者")])
def test_what_is_found_fits_a_phone(page, address, prefix, words):
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(f"{address}/{prefix}index.html")
    assert page.evaluate(WIDER) <= 0
    page.fill(".search input", words)
    page.wait_for_selector(".found a")
    box = page.locator(".found").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 320


def test_it_can_be_read_without_a_server(page, folder):
    page.goto(f"file://{folder}/ppo/index.html")
    assert page.locator(".tex .katex").count() > 3
    page.click("text=Play with the trained policy")
    page.wait_for_function("typeof play === 'object' && play.game && play.game.steps > 5")


def test_pages_are_pages_and_no_markdown(folder):
    """A page that another one links to is built, not copied; the READMEs' tests would take a copy for the project's."""
    assert (folder / "CONTRIBUTING.html").exists() and not [*folder.rglob("*.md")]
    for index in "index.html", "zh/index.html":
        navigation = re.search(r"<nav.*?</nav>", (folder / index).read_text(encoding="utf-8"), re.DOTALL)[0]
        assert "common/" in navigation and "`" not in navigation


def test_size(folder):
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 15e6


def test_the_page_to_play_with_is_small(folder):
    """All that the browser loads for it, but the weights of what is played."""
    page = (folder / "play/index.html").read_text(encoding="utf-8")
    files = {name.split("?")[0] for name in re.findall(r'(?:src|href)="\.\./([^"]+\.(?:js|css)[^"]*)"', page)}
    assert "play.js" in files
    size = (folder / "play/index.html").stat().st_size + sum((folder / name).stat().st_size for name in files)
    assert size < 200_000


def copy_sources(folder):
    """What a build reads until it begins to write, and no pictures."""
    for each in (
        *ROOT.glob("*.md"),
        *ROOT.glob("[!.]*/*.md"),
        *ROOT.glob("[!.]*/*.py"),
        *(ROOT / "docs/site").glob("*.*"),
    ):
        copy = folder / each.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(each, copy)


@pytest.mark.parametrize(
    "file, old, new, said",
    [
        (
            "ppo/agent.py",
            "def train_critic(",
            "def fit(",
            "ppo/README.md, row 'Eq. (5.34), value fit': there is no PPO.",
        ),
        (
            "docs/book-map.md",
            "TRPO.kl`",
            "TRPO.div`",
            "docs/book-map.md, row 'Eq. (5.26)': there is no trpo/agent.py::TR",
        ),
        (
            "tests/test_sac.py",
            "def test_actions_are",
            "def test_are",
            "sac/README.md, row 'Algorithm 6.28, actions from",
        ),
        (
            "docs/errata.md",
            "::test_book_ids",
            "::test_ids",
            "docs/errata.md, row 'Ids': there is no test tests/test_com",
        ),
    ],
)
def test_a_row_that_leads_nowhere_stops_the_build(tmp_path, file, old, new, said):
    copy_sources(tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new), encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(said)


def test_what_a_build_leaves_that_has_stopped_does_not_stop_the_next(tmp_path):
    copy_sources(tmp_path)
    first, second = (build(tmp_path, tmp_path / "site") for _ in range(2))
    assert first.returncode == 1 and (tmp_path / "site").exists()  # a picture is missing
    assert second.stderr == first.stderr and "something else" not in first.stderr


@pytest.mark.parametrize("words", [["--help"], ["site", "more"]])
def test_a_wrong_argument_builds_nothing(tmp_path, words):
    command = [sys.executable, ROOT / "docs/site/build.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, [*tmp_path.iterdir()]) == (2, "", [])
    assert done.stderr == "error: give the folder to build the site in, or nothing\n"
