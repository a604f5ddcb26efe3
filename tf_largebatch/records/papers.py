"""The papers behind the recipes, as bibliographies have them, and their BibTeX.

`Recipe.paper` names one of `PAPERS`. Titles and authors were read in other papers' and projects'
bibliographies; those marked `[recall]` are quoted from memory.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tf_largebatch.records import sources
from tf_largebatch.records.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One publication.

    Attributes:
        key: of its BibTeX entry.
        title: whole.
        authors: "First Last", joined by " and " as BibTeX has it.
        year: of publication; None where it is not known.
        venue: where it was published; of a preprint "".
        arxiv: its number there; "" where it is not.
    """

    key: str
    title: str
    authors: str
    year: int | None
    venue: str = ""
    arxiv: str = ""

    @property
    def link(self) -> str:
        """Its address; "" where it is not on arXiv."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    def bibtex(self) -> str:
        r"""Returns its entry; capitals of the title are kept.

        >>> print(PAPERS["arXiv:1708.03888"].bibtex())
        @misc{you2017lars,
          title = {{Large Batch Training of Convolutional Networks}},
          author = {Yang You and Igor Gitman and Boris Ginsburg},
          year = {2017},
          eprint = {1708.03888},
          archivePrefix = {arXiv},
        }
        """
        fields = {"title": f"{{{self.title}}}", "author": self.authors}
        fields |= {"year": str(self.year)} if self.year else {}
        kind = "inproceedings" if self.venue else "misc"
        fields |= {"booktitle": self.venue} if self.venue else {}
        fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"} if self.arxiv else {}
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
        return "\n".join([f"@{kind}{{{self.key},", *lines, "}"])


PAPERS = {
    "arXiv:1404.5997": Paper(
        key="krizhevsky2014trick",
        title="One weird trick for parallelizing convolutional neural networks",
        authors="Alex Krizhevsky",  # [recall]
        year=2014,
        arxiv="1404.5997",
    ),
    "arXiv:1512.03385": Paper(
        key="he2016resnet",
        title="Deep Residual Learning for Image Recognition",
        authors="Kaiming He and Xiangyu Zhang and Shaoqing Ren and Jian Sun",
        year=2016,
        venue="IEEE Conference on Computer Vision and Pattern Recognition",
        arxiv="1512.03385",
    ),
    "arXiv:1705.08741": Paper(
        key="hoffer2017longer",
        title="Train longer, generalize better: closing the generalization gap in large batch "
        "training of neural networks",
        authors="Elad Hoffer and Itay Hubara and Daniel Soudry",
        year=2017,
        venue="Advances in Neural Information Processing Systems 30",
        arxiv="1705.08741",
    ),
    "arXiv:1706.02677": Paper(
        key="goyal2017hour",
        title="Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour",
        authors=r"Priya Goyal and Piotr Doll{\'a}r and Ross Girshick and Pieter Noordhuis and "
        "Lukasz Wesolowski and Aapo Kyrola and Andrew Tulloch and Yangqing Jia and Kaiming He",
        year=2017,
        arxiv="1706.02677",
    ),
    "arXiv:1708.03888": Paper(
        key="you2017lars",
        title="Large Batch Training of Convolutional Networks",
        authors="Yang You and Igor Gitman and Boris Ginsburg",
        year=2017,
        arxiv="1708.03888",
    ),
    "arXiv:1709.05011": Paper(
        key="you2018minutes",
        title="ImageNet Training in Minutes",
        authors="Yang You and Zhao Zhang and Cho-Jui Hsieh and James Demmel and Kurt Keutzer",
        year=2018,
        venue="Proceedings of the 47th International Conference on Parallel Processing",
        arxiv="1709.05011",
    ),
    "arXiv:1711.00489": Paper(
        key="smith2018decay",
        title="Don't Decay the Learning Rate, Increase the Batch Size",
        authors="Samuel L. Smith and Pieter-Jan Kindermans and Chris Ying and Quoc V. Le",
        year=2018,
        venue="International Conference on Learning Representations",
        arxiv="1711.00489",
    ),
    "arXiv:1711.04291": Paper(
        key="codreanu2017scale",
        title="Scale out for large minibatch SGD: Residual network training on ImageNet-1K with "
        "improved accuracy and reduced time to train",
        authors="Valeriu Codreanu and Damian Podareanu and Vikram Saletore",  # [recall] first names
        year=2017,
        arxiv="1711.04291",
    ),
    "arXiv:1711.04325": Paper(
        key="akiba2017minutes",
        title="Extremely Large Minibatch SGD: Training ResNet-50 on ImageNet in 15 Minutes",
        authors="Takuya Akiba and Shuji Suzuki and Keisuke Fukuda",
        year=2017,
        arxiv="1711.04325",
    ),
    "arXiv:1807.11205": Paper(
        key="jia2018four",
        title="Highly Scalable Deep Learning Training System with Mixed-Precision: Training "
        "ImageNet in Four Minutes",
        authors="Xianyan Jia and Shutao Song and Wei He and Yangzihao Wang and Haidong Rong and "
        "Feihu Zhou and Liqiang Xie and Zhenyu Guo and Yuanzhou Yang and Liwei Yu and "
        "Tiegang Chen and Guangxiao Hu and Shaohuai Shi and Xiaowen Chu",
        year=2018,
        arxiv="1807.11205",
    ),
    "arXiv:1808.07217": Paper(
        key="lin2020local",
        title="Don't Use Large Mini-batches, Use Local SGD",
        authors="Tao Lin and Sebastian U. Stich and Kumar Kshitij Patel and Martin Jaggi",
        year=2020,
        venue="International Conference on Learning Representations",
        arxiv="1808.07217",
    ),
    "arXiv:1811.05233": Paper(
        key="mikami2018flash",
        title="Massively Distributed SGD: ImageNet/ResNet-50 Training in a Flash",
        authors="Hiroaki Mikami and Hisahiro Suganuma and Pongsakorn U-chupala and "
        "Yoshiki Tanaka and Yuichi Kageyama",
        year=2018,
        arxiv="1811.05233",
    ),
    "arXiv:1811.06992": Paper(
        key="ying2018supercomputer",
        title="Image Classification at Supercomputer Scale",
        authors="Chris Ying and Sameer Kumar and Dehao Chen and Tao Wang and Youlong Cheng",
        year=2018,
        arxiv="1811.06992",
    ),
    "arXiv:1811.12019": Paper(
        key="osawa2018kfac",
        title="Second-order Optimization Method for Large Mini-batch: Training ResNet-50 on "
        "ImageNet in 35 Epochs",
        authors="Kazuki Osawa and Yohei Tsuji and Yuichiro Ueno and Akira Naruse and "
        "Rio Yokota and Satoshi Matsuoka",
        year=2018,
        arxiv="1811.12019",
    ),
    "arXiv:1903.12650": Paper(
        key="yamazaki2019sgd",
        title="Yet Another Accelerated SGD: ResNet-50 Training on ImageNet in 74.7 seconds",
        authors="Masafumi Yamazaki and Akihiko Kasagi and Akihiro Tabuchi and Takumi Honda and "
        "Masahiro Miwa and Naoto Fukumoto and Tsuguchika Tabaru and Atsushi Ike and "
        "Kohta Nakashima",  # [recall]
        year=2019,
        arxiv="1903.12650",
    ),
    "arXiv:1904.00962": Paper(
        key="you2020lamb",
        title="Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
        authors="Yang You and Jing Li and Sashank Reddi and Jonathan Hseu and Sanjiv Kumar and "
        "Srinadh Bhojanapalli and Xiaodan Song and James Demmel and Kurt Keutzer and "
        "Cho-Jui Hsieh",
        year=2020,
        venue="International Conference on Learning Representations",
        arxiv="1904.00962",
    ),
    "arXiv:2002.09018": Paper(
        key="anil2020shampoo",
        title="Scalable Second Order Optimization for Deep Learning",
        authors="Rohan Anil and Vineet Gupta and Tomer Koren and Kevin Regan and Yoram Singer",
        year=2020,
        arxiv="2002.09018",
    ),
    "arXiv:2102.06356": Paper(
        key="nado2021reality",
        title="A Large Batch Optimizer Reality Check: Traditional, Generic Optimizers Suffice "
        "Across Batch Sizes",
        authors="Zachary Nado and Justin M. Gilmer and Christopher J. Shallue and Rohan Anil and "
        "George E. Dahl",  # [recall] first names
        year=2021,
        arxiv="2102.06356",
    ),
    "arXiv:2110.00476": Paper(
        key="wightman2021strikes",
        title="ResNet strikes back: An improved training procedure in timm",
        authors=r"Ross Wightman and Hugo Touvron and Herv{\'e} J{\'e}gou",
        year=2021,
        arxiv="2110.00476",
    ),
    "MLPerf Training": Paper(
        key="mattson2020mlperf",
        title="MLPerf Training Benchmark",
        authors="Peter Mattson and Christine Cheng and Gregory Diamos and Cody Coleman and "
        "Paulius Micikevicius and David Patterson and Hanlin Tang and Gu-Yeon Wei and "
        "Peter Bailis and Victor Bittorf and others",
        year=2020,
        venue="Proceedings of Machine Learning and Systems 2",
    ),
    "poster": Paper(
        key="mccord-dash-warmup",
        title="Poster on the warmup of large batches",  # ours: its title is on no slide we have
        authors="McCord and Dash",
        year=None,
    ),
}
# Of an optimizer that is a paper's own: SGD and RMSprop are not.
OPTIMIZERS = {
    "LARSSpec": "arXiv:1708.03888",
    "LAMBSpec": "arXiv:1904.00962",
    "KFACSpec": "arXiv:1811.12019",
    "ShampooSpec": "arXiv:2002.09018",
}


def cited(recipes: Iterable[Recipe]) -> dict[str, str]:
    """Returns what a family of recipes rests on: name of the paper -> what it gives them.

    First the papers that are reproduced, then those of the optimizers, then those whose numbers
    are taken where the first do not say.
    """
    recipes = tuple(recipes)
    found = {recipe.paper: "reproduced" for recipe in recipes}
    for recipe in recipes:
        paper = OPTIMIZERS.get(type(recipe.optimizer).__name__)
        if paper is not None:
            found.setdefault(paper, f"optimizer {type(recipe.optimizer).__name__[:-4]}")
    for recipe in recipes:
        for source in sources.read_recipe(recipe).values():
            if taken := re.match(r"taken from (arXiv:[\d.]+|[^:]+): ", source.text):
                found.setdefault(taken[1], "numbers that the paper does not say")
    return found


def bibliography(recipes: Iterable[Recipe]) -> str:
    """Returns the BibTeX of `cited`, each entry below a comment that says what it gives."""
    entries = [f"% {why}\n{PAPERS[name].bibtex()}" for name, why in cited(recipes).items()]
    return "\n\n".join(entries)
