import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

import cylstm

setup(
    ext_modules=cythonize(
        Extension(
            "downstream.streams",
            ["src/downstream/streams.pyx", "src/downstream/gate.c"],
            include_dirs=[numpy.get_include(), cylstm.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        ),
        compiler_directives={"language_level": 3, "freethreading_compatible": True},
    )
)
