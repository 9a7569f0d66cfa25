"""The compiled parts. All else that a build needs to know is in ``pyproject.toml``.

Where they cannot be compiled, the build goes on without them and the same code in Python is used.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = ("wire.postgres._tracker", "router._relay")

extensions = cythonize(
    [
        Extension(
            f"verdigris.{name}",
            [f"src/verdigris/{name.replace('.', '/')}.pyx"],
            extra_compile_args=["-O2", "-g0"],
        )
        for name in MODULES
    ],
    build_dir="build/cython",
    include_path=["src"],
)
for extension in extensions:
    extension.optional = True  # here, because cythonize() does not pass it on

setup(ext_modules=extensions)
