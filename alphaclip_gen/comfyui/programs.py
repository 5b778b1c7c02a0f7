"""Programs of the clone that are not part of the package, such as nerf/: flat folders of modules.

Their modules import one another by bare names (`field`, `render` ...), and other node packs may
have modules of these names too. So each is loaded with an import of its own, which looks among its
siblings first; nothing is put on the path, and no bare name into `sys.modules`.
"""

import builtins
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

CLONE = Path(__file__).resolve().parents[2]


class Program:
    """The modules of a flat program, as attributes; each is loaded when it is first asked for.

    Args:
        name: of its folder beside the package.
        clone: the folder that holds both.

    Raises:
        FileNotFoundError: the program is not there, as in an installation from a wheel.
    """

    def __init__(self, name: str, clone: Path = CLONE):
        self._folder = clone / name
        self._modules: dict[str, ModuleType] = {}
        if not self._folder.is_dir():
            raise FileNotFoundError(
                f"{name}/ is not beside the package; this node needs the whole repository: clone "
                f"it into custom_nodes, or install the pack by ComfyUI Manager."
            )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not self._has(name):
            raise AttributeError(f"{self._folder.name}/ has no module {name!r}")
        return self._load(name)

    def _has(self, name: str) -> bool:
        return (self._folder / f"{name}.py").is_file()

    def _load(self, name: str) -> ModuleType:
        if name not in self._modules:
            place = f"{__name__}.{self._folder.name}.{name}"
            spec = spec_from_file_location(place, self._folder / f"{name}.py")
            assert spec is not None and spec.loader is not None
            module = module_from_spec(spec)
            vars(module)["__builtins__"] = {**vars(builtins), "__import__": self._import}
            self._modules[name] = sys.modules[place] = module
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del self._modules[name], sys.modules[place]
                raise
        return self._modules[name]

    def _import(
        self,
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Any = (),
        level: int = 0,
    ) -> ModuleType:
        """What `import` means inside the program."""
        if level == 0 and self._has(name):
            return self._load(name)
        return builtins.__import__(name, globals, locals, fromlist, level)


_programs: dict[str, Program] = {}


def program(name: str) -> Program:
    """The program of a name beside the package; loaded once."""
    if name not in _programs:
        _programs[name] = Program(name)
    return _programs[name]
