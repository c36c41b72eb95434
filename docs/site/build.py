"""The site, out of the repository's own pages and sources: python docs/site/build.py [FOLDER], by default site/.

Every README.md, docs/*.md and *.md at the top is a page, in English and, where there is a .zh-CN.md beside it, in
Chinese. A folder's page gets its formulas: each row of its map whose number is in formulas.toml, with the lines that
compute it and the tests. The page to play with is play.html. Needs requirements/docs.txt, no TensorFlow and, to be
looked at, no server.
"""

import html
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path, PurePosixPath
from string import Template

import maps
import networks
from maps import ROOT, Function, MapError, Sources, slug
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])

WORDS = json.loads((HERE / "words.json").read_text(encoding="utf-8"))  # what no page of the repository says


class Site:
    """What is written where. Paths of sources are relative to the repository, paths of pages to the site."""

    def __init__(self, target: Path):
        self.target, self.sources = target, Sources()
        self.formulas = read_formulas()
        self.folders = self._folders()  # [(folder, section)] in the book's order
        self.copied, self.sources_shown, self.anchored, self.highlighted = set(), set(), set(), {}
        self.index = {"en": [], "zh": []}  # what the search knows: [place, title, text]
        self.cards = {}  # "5.38": "ppo/index.html", for the links of the book map
        self.maps = {(words, folder): self._map(words, folder) for words in WORDS for folder, _ in self.folders}
        self.books = {words: self._book(words) for words in WORDS}  # the same rows in each language
        self.book = self.books["en"]
        maps.errata(read(ROOT / "docs/errata.md"), "docs/errata.md", self.sources)
        # An algorithm's errata are of one line or another: there its formula says whether it is this one.
        daggers = [row for row in self.book if "†" in row.book and not row.book.startswith("Algorithm")]
        self.corrected = {number for row in daggers for number in row.numbers}
        self.pages = self._pages()

    # ---- What there is

    def _folders(self):
        """The algorithms by the rows of README.md that begin with | [ppo](ppo/README.md) | 5.8, 5.10.6 |"""
        return re.findall(r"^\| \[(\w+)\]\(\1/README\.md\) \| (\d\.\d+)[, ]", read(ROOT / "README.md"), re.M)

    def _pages(self):
        """{Markdown file: its page}, Chinese files aside: the page of X.zh-CN.md is zh/ and that of X.md."""
        pages = {}
        patterns = [
            "README.md",
            "*.md",
            *(f"{folder}/*.md" for folder, _ in self.folders),
            "[!.]*/README.md",
            "docs/*.md",
        ]
        # In this order, as docs/ links to the cards of the folders.
        files = [file for pattern in patterns for file in sorted(ROOT.glob(pattern))]
        for file in (file for file in files if ".zh-CN" not in file.name):
            path = PurePosixPath(file.relative_to(ROOT))
            page = path.with_suffix(".html")
            if path.name == "README.md":
                page = path.with_name("index.html")
            elif path.parts[0] == "docs":
                page = PurePosixPath(path.stem + ".html")
            pages.setdefault(str(path), str(page))
        return pages

    def _map(self, language, folder):
        path = f"{folder}/README{'.zh-CN' if language == 'zh' else ''}.md"
        return maps.folder_map(folder, read(ROOT / path), path, self.sources)

    def _book(self, language):
        path = "docs/book-map.zh-CN.md" if language == "zh" else "docs/book-map.md"
        return maps.book_map(read(ROOT / path), path, self.sources)

    def markdown(self, path: str, language: str) -> str:
        """The text of a page in a language, or in English where there is no Chinese one."""
        chinese = ROOT / path.replace(".md", ".zh-CN.md")
        text = read(chinese if language == "zh" and chinese.exists() else ROOT / path)
        return re.sub(r"^\[(中文说明|English)\]\([.\w-]+\.md\)\n", "", text, flags=re.M)  # every page has such a link

    # ---- Building

    def build(self):
        if self.target.exists():
            if any(self.target.iterdir()) and not (self.target / ".nojekyll").exists():
                raise MapError(f"{self.target} holds something else than a site: remove it, or name another folder")
            shutil.rmtree(self.target)
        self.target.mkdir(parents=True)
        self.write(".nojekyll", "")  # first, so that what a build leaves that stops is known for a site
        for language in WORDS:
            for path, page in self.pages.items():
                text = self.markdown(path, language)
                self.page(language, page, path, text)
            self._play(language)
            index = json.dumps(self.index[language], ensure_ascii=False)
            self.write(f"search-{language}.js", f"site.index = {index};\n")
        for path in sorted(self.sources_shown):
            self._source(path)
        for env, folders in networks.ENVIRONMENTS.items():
            for folder in folders:
                self.write(f"weights/{folder}_{env}.js", networks.export(ROOT, folder, env))
        for name in ("style.css", "site.js", "play.js"):
            shutil.copy(HERE / name, self.target / name)
        shutil.copytree(HERE / "katex", self.target / "katex")

    def page(self, language, page, path, text):
        """Write a page of Markdown. path: its file, to which its links are relative."""
        folder = path.removesuffix("/README.md")
        cards = self.cards_of(language, folder) if folder in dict(self.folders) else None
        body, headings = self.render(language, page, path, text, cards)
        if page == "index.html":
            button = f'<a class="button" href="play/index.html">{WORDS[language]["play"]}</a>'
            body = body.replace("</h1>", f'</h1><p class="front">{WORDS[language]["front"]} {button}</p>', 1)
        english = language == "zh" and not (ROOT / path.replace(".md", ".zh-CN.md")).exists()
        if english:
            body = f'<p class="note" lang="zh-CN">{WORDS["zh"]["english-only"]}</p>{body}'
        self.shell(language, page, headings, body, text_lang="en" if english else None)

    def shell(self, language, page, headings, body, scripts="", text_lang=None):
        """Write a page in the frame that all have."""
        words, own = WORDS[language], self.path(language, page)
        root = self.relative(own, ".")
        other = self.path("en" if language == "zh" else "zh", "index.html" if page.startswith("source/") else page)
        if 'class="tex"' in body:
            scripts += f'<script src="{root}/katex/katex.min.js"></script>'
        title = plain(headings[0][2]) if headings else words["home"]
        filled = Template(read(HERE / "page.html")).substitute(
            {name: text for name, text in words.items() if name != "page-to-play-with"},
            text_lang=text_lang or words["lang"],
            title=title if page == "index.html" else f"{title} · {words['home']}",
            root="" if root == "." else f"{root}/",
            index=f"search-{language}.js",
            home_link=self.relative(own, self.path(language, "index.html")),
            other_link=self.relative(own, other),
            other_lang="en" if language == "zh" else "zh-CN",
            play_link=self.relative(own, self.path(language, "play/index.html")),
            navigation=self.navigation(language, page, headings),
            body=body,
            scripts=scripts,
            katex_css=f'<link rel="stylesheet" href="{root}/katex/katex.min.css">' if 'class="tex"' in body else "",
        )
        self.write(own, filled)

    def navigation(self, language, page, headings):
        words, own = WORDS[language], self.path(language, page)

        def item(target, label):
            here = ' aria-current="page"' if target == page else ""
            link = f'<a href="{self.relative(own, self.path(language, target))}"{here}>{label}</a>'
            inner = [f'<li><a href="#{anchor}">{text}</a></li>' for level, anchor, text in headings[1:] if level == 2]
            return f"<li>{link}{'<ul>' + ''.join(inner) + '</ul>' if here and inner else ''}</li>"

        algorithms = "".join(item(f"{f}/index.html", f"<small>{section}</small>{f}") for f, section in self.folders)
        listed = {"index.html", *(f"{f}/index.html" for f, _ in self.folders)}
        others = {"results.html": words["results"], "benchmarks/index.html": words["benchmarks"]}
        for path, target in self.pages.items():
            if target not in listed:
                others.setdefault(target, self.label(language, path))
        rest = "".join(item(target, label) for target, label in others.items())
        return (
            f"<ul>{item('index.html', words['home'])}{item('play/index.html', words['play'])}</ul>"
            f"<h2>{words['algorithms']}</h2><ul>{algorithms}</ul><h2>{words['more']}</h2><ul>{rest}</ul>"
        )

    def label(self, language, path):
        """What README.md calls a page where it links to it, or the page's title."""
        name = re.escape(path.removesuffix(".md"))
        named = re.search(rf"\[([^\]]+)\]\({name}(?:\.zh-CN)?\.md\)", self.markdown("README.md", language))
        label = plain(inline(named[1] if named else first_heading(self.markdown(path, language))))
        return label[0].upper() + label[1:]

    # ---- The pages that are made of others

    def _play(self, language):
        words = WORDS[language]["page-to-play-with"]
        groups = "".join(
            f'<optgroup label="{env}">'
            + "".join(f'<option value="{folder}/{env}">{folder}</option>' for folder in folders)
            + "</optgroup>"
            for env, folders in networks.ENVIRONMENTS.items()
        )
        own = self.path(language, "play/index.html")
        body = Template(read(HERE / "play.html")).substitute(
            {name: text for name, text in words.items() if isinstance(text, str)},
            runs=groups,
            pong_file=self.file(own, "reinforce/pong.gif"),
            walker_file=self.file(own, "a3c/play.gif"),
            walker_acktr_file=self.file(own, "acktr/walk.gif"),
            script=json.dumps(words["script"], ensure_ascii=False),
        )
        root = self.relative(own, "play.js")
        self.shell(language, "play/index.html", [(1, "", words["title"])], body, f'<script src="{root}"></script>')
        self._remember(language, "play/index.html", words["title"], "", words["intro"])

    def _source(self, path):
        """A Python file with numbered lines; the anchors are L1, L2, ..."""
        lines = self.lines(path)
        numbered = "".join(f'<span class="line" id="L{i}">{line}\n</span>' for i, line in enumerate(lines, 1))
        body = f'<h1><code>{path}</code></h1><pre class="source-page"><code>{numbered}</code></pre>'
        self.shell("en", f"source/{path}.html", [(1, "", path)], body)

    # ---- Formulas

    def cards_of(self, language, folder):
        """The cards of a folder: those of its own map, then equations that only the whole map has there."""
        page = f"{folder}/index.html"
        own = self.path(language, page)
        rows = [*self.maps[language, folder]]
        known = {number for row in rows for number in row.numbers}
        for row, own_row in zip(self.book, self.books[language], strict=True):
            here = tuple(function for function in row.functions if function.path.split("/")[0] == folder)
            if here and row.book.startswith("Eq.") and not known & set(row.numbers):
                book = f"{own_row.book.replace(' †', '')}{'，' if language == 'zh' else ', '}{own_row.says}"
                rows.insert(self._place(rows, row), maps.Row(book, row.says, here, row.tests))
        cards = []
        for row in rows:
            found = self._formulas_of(row)
            if found:
                cards.append(self._card(language, own, page, row, found))
        play = next((env for env in reversed(networks.ENVIRONMENTS) if folder in networks.ENVIRONMENTS[env]), None)
        words = WORDS[language]
        link = self.relative(own, self.path(language, "play/index.html"))
        button = f'<p><a class="button" href="{link}#{folder}/{play}">{words["play-here"]}</a></p>' if play else ""
        intro = words["formulas-intro"].replace("$errata", self.relative(own, self.path(language, "errata.html")))
        return f'{button}<h2 id="formulas">{words["formulas"]}</h2><p>{intro}</p>{"".join(cards)}'

    @staticmethod
    def _place(rows, row):
        """Where a row of the whole map belongs among a folder's rows: before the first equation that comes later."""

        def first(row):
            return [[int(part) for part in number.split(".")] for number in row.numbers if number[0] in "56"][:1]

        return next((i for i, each in enumerate(rows) if first(each) > first(row)), len(rows))

    def _formulas_of(self, row):
        """[(number, LaTeX)] of a row, each formula once."""
        found = {}
        for number in row.numbers:
            of_number = self.formulas.get(number)
            if isinstance(of_number, dict):
                for function in row.functions:
                    if function.name in of_number:
                        found.setdefault(of_number[function.name], number)
            elif of_number:
                found.setdefault(of_number, number)
        return [(number, tex) for tex, number in found.items()]

    def _card(self, language, own, page, row, formulas):
        words = WORDS[language]
        for number in row.numbers:
            self.cards.setdefault(number, page)
        corrected = [number for number in row.numbers if number in self.corrected]
        dagger = ""
        if corrected or any(r"\fix" in tex for _, tex in formulas):
            errata = self.relative(own, self.path(language, "errata.html"))
            dagger = f' <a class="dagger" href="{errata}" title="{words["corrected"]}">†</a>'
        shown = "".join(
            f'<div class="formula" data-number="{number}"><span class="tex">{html.escape(tex)}</span></div>'
            for number, tex in formulas
        )
        sources = "".join(self._lines_of(own, function, row.numbers) for function in row.functions)
        proofs = "".join(
            f"<details><summary>{words['test']}: <code>{test.name}</code></summary>"
            f"{self.code(own, test, range(test.lines[0], test.lines[1] + 1), set())}</details>"
            for test in row.tests
        )
        anchors = "".join(f'<a id="eq-{n.replace(" ", "-")}"></a>' for n in row.numbers if self._first(own, n))
        place = f"eq-{row.numbers[0].replace(' ', '-')}"
        self._remember(language, page, plain(row.book), place, " ".join(f.name for f in row.functions))
        return (
            f'<section class="card">{anchors}<h3>{inline(row.book)}{dagger}</h3>'
            f'<div class="formulas">{shown}</div><div class="lines">{sources}{proofs}</div></section>'
        )

    def _first(self, own, number):
        """Whether this is a page's first card of a number, which then has its anchor."""
        first = (own, number) not in self.anchored
        self.anchored.add((own, number))
        return first

    def _lines_of(self, own, function: Function, numbers):
        """A function, the lines marked that bear a number; of its docstring only what names one that no line bears."""
        bearing = set().union(*(self.sources.bearing(function, number) for number in numbers))
        naming = set().union(*(self.sources.naming(function, number) for number in numbers))
        documented = set(self.sources.docstring(function))
        first, last = function.lines
        shown = [line for line in range(first, last + 1) if line not in documented or line in naming - bearing]
        if bearing:
            shown = [line for line in shown if line not in documented]
        while not self.sources.text(function.path).splitlines()[shown[-1] - 1].strip():
            shown.pop()
        return self.code(own, function, shown, bearing or naming)

    def code(self, own, function, shown, marked):
        """Lines of a file, with their numbers, under a link to the whole file."""
        lines, first = self.lines(function.path), function.lines[0]
        text = lines[first - 1]
        indent = len(text) - len(text.lstrip())  # a method's lines begin at the left
        body = "".join(
            f'<span class="line{" marked" * (line in marked)}" data-line="{line}">{lines[line - 1][indent:]}\n</span>'
            for line in shown
        )
        link = self.source(own, function.path, function)
        return (
            f'<figure class="code" data-path="{function.path}"><figcaption><a href="{link}">{function.path}'
            f"<b>:{first}</b></a> {html.escape(function.name)}</figcaption>"
            f'<pre tabindex="0"><code>{body}</code></pre></figure>'
        )

    def lines(self, path):
        """The lines of a Python file as HTML."""
        if path not in self.highlighted:
            self.highlighted[path] = coloured(self.sources.text(path), "python").split("\n")
        return self.highlighted[path]

    # ---- Markdown

    def render(self, language, page, path, text, cards=None):
        """(HTML, [(level, anchor, text)] of the headings). cards: HTML that goes before the second heading."""
        own = self.path(language, page)
        tokens, headings, split = MARKDOWN.parse(text), [], 0
        names = anchors(text)
        for i, token in enumerate(tokens):
            if token.type == "heading_open":
                anchor = names[len(headings)]
                token.attrSet("id", anchor)
                if len(headings) == 1:
                    split = i
                headings.append((int(token.tag[1]), anchor, inline(tokens[i + 1].content)))
            elif token.type == "inline":
                self._inline(language, own, path, token)
                if headings and tokens[i - 1].type != "heading_open":
                    self._remember(language, page, plain(headings[-1][2]), headings[-1][1], token.content)
            elif token.type in ("fence", "code_block"):
                self._fence(token)
        first, rest = (
            MARKDOWN.renderer.render(part, MARKDOWN.options, {}) for part in (tokens[:split], tokens[split:])
        )
        if cards:
            headings.insert(1, (2, "formulas", WORDS[language]["formulas"]))
        body = (
            (first + (cards or "") + rest)
            .replace("<table>", '<div class="table"><table>')
            .replace("</table>", "</table></div>")
        )
        return body, headings

    def _fence(self, token):
        try:
            coded = coloured(token.content, token.info or "bash")
        except ClassNotFound:
            coded = html.escape(token.content)
        token.type, token.tag, token.content = "html_block", "", f'<pre tabindex="0"><code>{coded}</code></pre>'

    def _inline(self, language, own, path, token):
        """Links to where they lead on the site; code that names a function or a test to its lines."""
        linked = False
        for child in token.children:
            if child.type == "link_open":
                child.attrSet("href", self.link(language, own, path, child.attrGet("href")))
            elif child.type == "image":
                child.attrSet("src", self.file(own, self.resolve(path, child.attrGet("src"))))
                child.attrSet("loading", "lazy")
            linked = child.type == "link_open" or (linked and child.type != "link_close")
            if child.type == "code_inline":
                target = None if linked else self._code_target(own, path, child.content)
                if linked or target:
                    shown = re.sub(r"(_|::|/)", r"\1<wbr>", html.escape(child.content))  # where a long name may break
                    code = f"<code>{shown}</code>"
                    child.type = "html_inline"
                    child.content = f'<a class="code" href="{target}">{code}</a>' if target else code
            elif child.type == "text" and path == "docs/book-map.md":
                child.type = "html_inline"
                child.content = self._equations(language, own, html.escape(child.content))

    def _code_target(self, own, path, code):
        """Where `ppo/agent.py::PPO.update` leads; in a folder also `PPO.update`, `train` and `agent.py`."""
        folder = path.split("/")[0]
        if place := re.fullmatch(r"([\w/]+\.py)(?:::([\w.]+))?", code):
            for file in (place[1], f"{folder}/{place[1]}"):
                if (ROOT / file).is_file():
                    return self.source(own, file, self.sources.functions(file).get(place[2]))
        if folder in dict(self.folders) and re.fullmatch(r"\w+\.\w+|train|test", code):
            for file in (f"{folder}/agent.py", f"{folder}/main.py"):
                if function := self.sources.functions(file).get(code):
                    return self.source(own, file, function)
        return None

    def _equations(self, language, own, text):
        """Numbers of equations in the book map, as links to their cards."""

        def link(match):
            number = match[1] or f"Algorithm {match[2]}"
            if number not in self.cards:
                return match[0]
            target = self.relative(own, self.path(language, self.cards[number]))
            return f'<a href="{target}#eq-{number.replace(" ", "-")}">{match[0]}</a>'

        return re.sub(r"\((\d\.\d+)\)|(?:Algorithm|算法) (\d\.\d+)", link, text)

    # ---- Links and files

    def path(self, language, page):
        """A page's place in the site; sources are the same in both languages."""
        return page if language == "en" or page.startswith("source/") else f"zh/{page}"

    def relative(self, own, target):
        """A link from the page `own` to the file `target` of the site, without a server's help."""
        return os.path.relpath(target, PurePosixPath(own).parent).replace(os.sep, "/")

    def resolve(self, path, target):
        """The file of the repository that a page links to."""
        return os.path.normpath(PurePosixPath(path).parent / target).replace(os.sep, "/")

    def link(self, language, own, path, href):
        if "://" in href or href.startswith(("#", "mailto:")):
            return href
        target, _, anchor = href.partition("#")
        target = self.resolve(path, target)
        if (ROOT / target).is_dir():
            target += "/README.md"
        english = target.replace(".zh-CN.md", ".md")
        if english in self.pages:
            if anchor and language == "zh" and target == english:  # of an English page: the heading at the same place
                place = anchors(self.markdown(english, "en")).index(anchor)
                anchor = anchors(self.markdown(english, "zh"))[place]
            return self.relative(own, self.path(language, self.pages[english])) + (f"#{anchor}" if anchor else "")
        if target.endswith(".py") and (ROOT / target).is_file():
            return self.source(own, target) + (f"#{anchor}" if anchor else "")
        return self.file(own, target)

    def source(self, own, path, function=None):
        """The link to a Python file's page, or to a function on it; the page is written at the end."""
        self.sources_shown.add(path)
        return self.relative(own, f"source/{path}.html") + (f"#L{function.lines[0]}" if function else "")

    def file(self, own, path):
        """Copy a file of the repository into the site and return the link to it."""
        if not (ROOT / path).is_file():
            raise MapError(f"{own}: a link leads to {path}, which is no file")
        if path not in self.copied:
            (self.target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, self.target / path)
            self.copied.add(path)
        return self.relative(own, path)

    def write(self, path, text):
        file = self.target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def _remember(self, language, page, title, anchor, text):
        """Make a piece of text findable."""
        text = plain(re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", text))
        entries = self.index[language]
        if entries and entries[-1][:2] == [f"{page}#{anchor}", title]:
            entries[-1][2] += " " + text
        else:
            entries.append([f"{page}#{anchor}", title, text])


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def read_formulas() -> dict:
    """formulas.toml by single numbers; what has two numbers is there under both."""
    with open(HERE / "formulas.toml", "rb") as file:
        return {number: tex for numbers, tex in tomllib.load(file).items() for number in numbers.split(", ")}


def first_heading(text: str) -> str:
    return next(line[2:] for line in text.splitlines() if line.startswith("# "))


def inline(text: str) -> str:
    """Markdown of one line as HTML, links aside."""
    return MARKDOWN.renderInline(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text))


def plain(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", text))


def anchors(text: str) -> list[str]:
    """The anchors of a page's headings; the second of two equal ones ends in -1."""
    tokens, found = MARKDOWN.parse(text), []
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            name = slug(tokens[i + 1].content)
            before = sum(each == name for each, _ in found)
            found.append((name, f"{name}-{before}" if before else name))
    return [anchor for _, anchor in found]


def coloured(text: str, language: str) -> str:
    """Code as HTML, line by line; what has no colour in style.css gets no tag."""
    lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    coded = highlight(text, lexer, HtmlFormatter(nowrap=True))
    return re.sub(r'<span class="(?!(?:k|s|m|c|nf|nc|nd|fm|ow)[a-z0-9]?")\w+">([^<]*)</span>', r"\1", coded)


def main():
    start = time.perf_counter()
    if len(sys.argv) > 2 or any(word.startswith("-") for word in sys.argv[1:]):
        print("error: give the folder to build the site in, or nothing", file=sys.stderr)
        sys.exit(2)
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "site"
    try:
        Site(target).build()
    except MapError as error:
        sys.exit(f"{error}")
    files = [file for file in target.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{target}/index.html: {len(files)} files, {size:.1f} MB, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
