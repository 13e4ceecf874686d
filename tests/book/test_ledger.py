"""The ledger: verdicts follow from the records, and a record, a claim and a page that disagree are found out."""

import json
import re
import shutil
from pathlib import Path
from statistics import fmean

import pytest

from metarobust import storage
from metarobust.book.claims import (
    ORIGINS,
    PARTLY,
    REFUTED,
    SUPPORTED,
    UNTESTED,
    VERDICTS,
    Records,
    cite,
    cited,
    judge,
    ledger,
    load,
    renew,
)
from metarobust.book.claims.claims import FILE
from metarobust.book.claims.language import evaluate
from metarobust.book.claims.lookups import Lookups
from metarobust.book.claims.page import overview, runs, section
from metarobust.errors import InputError
from metarobust.lab import quote, tables

ROOT = Path(__file__).parents[2]
RUN = "patch-mnist-small"
PAGES = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md")), *sorted((ROOT / "notebooks").glob("*.ipynb"))]


@pytest.fixture(scope="module")
def functions():
    return Lookups(Records(quote.FOLDER)).functions()


# ------------------------------------------------------------------------------------- records, claims and pages agree


def test_every_claim_can_be_judged_and_reads_as_a_sentence():
    judged = ledger()
    assert len(judged) > 20
    for one in judged.values():
        assert one.verdict in VERDICTS
        assert re.fullmatch(r"[A-Z].*[.]", one.text), one.text
        assert "{" not in one.text
        for page in one.claim.said:
            assert page == "abstract" or (ROOT / page).is_file(), f"{one.claim.id} is said in {page}?"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_lean_on_claims_that_hold_and_show_their_numbers(path):
    text = path.read_text(encoding="utf-8")
    assert renew(text) == text, "make results writes the numbers anew"
    for words in re.findall(r"\{claim\}`([^`]+)`", text):
        assert cite(words)
    for name in cited(text):
        said = ledger()[name].claim.said
        assert str(path.relative_to(ROOT)) in said, f"claim {name!r} is said on this page: add it to `said`"
    # A comment that begins a line begins a block of HTML, and tears the paragraph.
    assert not re.search(r"^ *<!-- claim", text, flags=re.MULTILINE)


def test_a_claim_of_the_abstract_is_not_supported_while_evidence_is_to_come():
    abstract = [one for one in ledger().values() if one.claim.origin == "abstract"]
    assert abstract
    assert all(one.verdict != SUPPORTED for one in abstract if one.claim.wants)


@pytest.fixture
def copy(tmp_path):
    """A function that copies the recorded runs and alters one, values and seal."""

    def copy(change, run=RUN):
        shutil.copytree(quote.FOLDER, tmp_path / "recorded")
        folder = tmp_path / "recorded" / run
        manifest = storage.read_json(folder / "manifest.json")
        columns = {name: {"str": str, "int": int, "float": float}[kind] for name, kind in manifest["columns"].items()}
        rows = tables.read_csv(folder / "results.csv", columns, manifest["files_sha256"]["results.csv"])
        digest = tables.write_csv(folder / "results.csv", [change(row) for row in rows], columns)
        manifest["files_sha256"]["results.csv"] = digest
        storage.write_json(folder / "manifest.json", manifest)
        return tmp_path / "recorded"

    return copy


def learned(by):
    """Moves the robust accuracies of the learned rule."""

    def change(row):
        mine = row["method"] == "learned" and row["metric"] == "robust accuracy"
        return row | {"value": row["value"] + by} if mine else row

    return change


def judged_in(folder):
    return {claim.id: judge(claim, Records(folder)) for claim in load() if claim.id.startswith("patch-mnist")}


def test_a_record_that_says_otherwise_overturns_the_verdict_and_the_page(copy):
    found = judged_in(copy(learned(-0.2)))
    assert ledger()["patch-mnist-most-robust"].verdict == SUPPORTED
    assert found["patch-mnist-most-robust"].verdict in (PARTLY, REFUTED)
    with pytest.raises(InputError, match=r"'patch-mnist-most-robust' is (partly|not supported).*change what the page"):
        renew((ROOT / "README.md").read_text(), ledger() | found)


def test_a_record_that_says_nearly_the_same_makes_the_page_old(copy):
    found = judged_in(copy(learned(0.002)))
    assert found["patch-mnist-most-robust"].verdict == SUPPORTED
    text = (ROOT / "README.md").read_text()
    assert renew(text, ledger() | found) != text, "test_pages_lean_on_claims_... fails then"


def test_a_record_altered_without_its_seal_is_refused(copy):
    folder = copy(lambda row: row)
    with open(folder / RUN / "results.csv", "a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="damaged"):
        judged_in(folder)


def test_without_its_record_a_claim_is_not_tested(tmp_path):
    found = judged_in(tmp_path)
    assert {one.verdict for one in found.values()} == {UNTESTED}
    assert "not recorded" in found["patch-mnist-price"].text
    assert f"not tested, since {RUN} is not recorded" in section(found.values(), "added")


# ------------------------------------------------------------------------------------------- how a verdict comes about

CLAIM = """
[[claim]]
id = "one"
origin = "added"
said = ["abstract"]
text = "It is {a}."
"""
A = '{{ name = "a", says = "a number", value = "{}", range = [0, 1] }}'
B = '{{ name = "b", says = "another", value = "{}", range = [0, 1] }}'
GONE = "minutes('train-cifar10-full')"


def verdict(tmp_path, *evidence, more=""):
    path = tmp_path / "claims.toml"
    path.write_text(f"{CLAIM}{more}\nevidence = [{', '.join(evidence)}]\n")
    return judge(load(path)[0], Records(quote.FOLDER))


@pytest.mark.parametrize(
    ("evidence", "wanted"),
    [
        ([A.format("0.5")], SUPPORTED),
        ([A.format("1"), B.format("0")], SUPPORTED),
        ([A.format("2")], REFUTED),
        ([A.format("2"), B.format("0.5")], PARTLY),
        ([A.format(GONE)], UNTESTED),
        ([A.format("0.5"), B.format(GONE)], PARTLY),
        ([A.format("2"), B.format(GONE)], REFUTED),
        ([A.format("acc('anchor-mnist-small', '*') / 80")], PARTLY),
    ],
)
def test_a_verdict_follows_from_the_evidence(tmp_path, evidence, wanted):
    assert verdict(tmp_path, *evidence).verdict == wanted


def test_what_is_to_come_and_what_is_only_told(tmp_path):
    assert verdict(tmp_path, A.format("0.5"), more='wants = "more"').verdict == PARTLY
    assert verdict(tmp_path, more='wants = "all of it"\n').findings == ()
    told = A.format("5").replace("range = [0, 1]", "context = true")
    assert verdict(tmp_path, told, B.format("2")).verdict == REFUTED
    assert verdict(tmp_path, told, B.format("0")).text == "It is 5.0."


@pytest.mark.parametrize(
    ("value", "more", "shown"),
    [
        ("0.04", "digits = 1", "< 0.1"),
        ("0 - 0.04", "digits = 1", "0.0"),
        ("0 - 3.25", 'unit = "points"', "\u22123.2\u00a0points"),
        ("0.0002", "digits = 3", "< 0.001"),
        ("0", "digits = 3", "0.000"),
        ("acc('anchor-mnist-small', '*')", 'unit = "%", digits = 0', "0 to 89\u00a0%"),
    ],
)
def test_numbers_as_text(tmp_path, value, more, shown):
    evidence = A.format(value).replace("range = [0, 1] }", f"range = [-inf, inf], {more} }}")
    assert verdict(tmp_path, evidence).findings[0].shown == shown


def test_a_comparison_says_for_how_many_it_holds(tmp_path):
    compares = A.format("acc('anchor-mnist-small', '*') > 50").replace(", range = [0, 1]", "")
    (finding,) = verdict(tmp_path, compares).findings
    assert (finding.shown, finding.evidence.range()) == ("1 of 2", "to hold for each")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("id =", "ID ="), "unknown key 'ID'"),
        (('"added"', '"paper"'), "unknown origin 'paper'"),
        (('said = ["abstract"]', "said = []"), "claim 'one': it has no said"),
        (('name = "a", ', ""), "an evidence has no name"),
        (("[0, 1]", "[1, 0]"), "range [1, 0] is none"),
        (("range = [0, 1]", "context = true"), "it has no evidence"),
        (("range =", "rang ="), "unknown key of its evidence 'rang'"),
        (("= [{", "= [{{"), "is not TOML"),
        (("{a}", "{b}"), "its text asks for 'b'; name one of a"),
        (('"1"', '"acc(1)"'), "claim 'one', 'a': acc(...): missing a required argument"),
    ],
)
def test_a_claim_that_is_not_well_formed_is_named(tmp_path, change, says):
    path = tmp_path / "claims.toml"
    path.write_text(f"{CLAIM}evidence = [{A.format(1)}]\n".replace(*change, 1))
    with pytest.raises(InputError, match=re.escape(says)):
        assert judge(load(path)[0], Records(quote.FOLDER)).text


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text(2 * f"{CLAIM}evidence = [{A.format(1)}]\n")
    with pytest.raises(InputError, match="'one' is there twice"):
        load(path)


# ------------------------------------------------------------------------------------------------- the little language


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 - 4 / 2", 5),
        ("-(2 - 3)", 1),
        ("1 < 2 <= 2", 1),
        ("1 < 2 < 2", 0),
        ("min(3, 1, 2) + max(1, 2) + mean(1, 3)", 5),
        ("count(1 > 2, 2 > 1)", 1),
        ("all(1 > 0, 2 > 1) - any(0 > 1)", 1),
    ],
)
def test_arithmetic(text, value):
    assert evaluate(text, {}) == value


def test_labels_go_with_labels():
    lookups = {"pair": lambda: {"x": 1.0, "y": 2.0}, "other": lambda: {"x": 1.0}}
    assert evaluate("pair() * 2 - 1", lookups) == {"x": 1.0, "y": 3.0}
    assert evaluate("1 - pair() > pair() - 2", lookups) == {"x": 1.0, "y": 0.0}
    with pytest.raises(InputError, match="the labels differ: x, y on one side and x on the other"):
        evaluate("pair() - other()", lookups)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("__import__('os')", "unknown look-up '__import__'"),
        ("(1).real", "not understood"),
        ("[1 for x in 'ab']", "not understood"),
        ("2 ** 9", "not understood"),
        ("x", "not understood"),
        ("min(*[1, 2])", "not understood"),
        ("min(**{'a': 1})", "not understood"),
        ("lambda: 1", "not understood"),
        ("1 == 1", "not understood"),
        ("True", "no numbers"),
        ("'word'", "not a number"),
        ("'a' + 1", "'a' is no number"),
        ("1 +", "cannot be read"),
        ("1 / 0", "1 / 0 has no value"),
        ("min()", "nothing to take"),
    ],
)
def test_nothing_else_is_understood(text, says):
    with pytest.raises(InputError, match=re.escape(says)):
        evaluate(text, {})


# -------------------------------------------------------------------------------------------------------- the look-ups


def test_accuracy_is_the_mean_that_pages_quote(functions):
    found = evaluate(f'acc("{RUN}", "learned", part="patch")', functions)
    assert len(found) == 5
    for model, value in found.items():
        assert f"{value:.1f}" == quote.quote(f"{RUN} patch {model} learned robust")
    half = evaluate(f'spread("{RUN}", "learned", part="patch", model="cnn-*")', functions)
    assert f"{half:.1f}" == quote.quote(f"{RUN} patch cnn-6-12-elu learned spread")
    clean = evaluate(f'acc("{RUN}", "learned", "clean", part="patch", model="mlp-64-sigmoid")', functions)
    assert f"{clean:.1f}" == quote.quote(f"{RUN} patch mlp-64-sigmoid learned clean")


def test_best_is_the_highest_of_its_tiers_and_nothing_learned(functions):
    _, rows = quote.recorded(RUN)
    model = "mlp-64-sigmoid"
    means = {}
    for method, tier in {(row["method"], row["tier"]) for row in rows}:
        if tier in ("0", "1", "2"):
            means[method] = evaluate(f'acc("{RUN}", "{method}", part="patch", model="{model}")', functions)
    plain = {name: value for name, value in means.items() if not name.startswith("learned")}
    asked = f'best("{RUN}", by="robust", part="patch", model="{model}"'
    assert evaluate(f"{asked})", functions) == pytest.approx(max(plain.values()))
    assert evaluate(f"{asked}, learned=1)", functions) == pytest.approx(max(means.values()))
    assert max(means.values()) > max(plain.values())


def test_a_gap_is_a_difference_of_means_and_p_is_raised_for_several(functions):
    both = f'gap("{RUN}", "learned", "adam", part="patch")'
    apart = f'acc("{RUN}", "learned", part="patch") - acc("{RUN}", "adam", part="patch")'
    assert evaluate(both, functions) == pytest.approx(evaluate(apart, functions))
    asked = f'p_value("{RUN}", "learned", "std-prune", part="patch", model="{{}}")'
    alone, among = (evaluate(asked.format(model), functions) for model in ("mlp-36-36-softplus", "mlp-*"))
    assert among["mlp-36-36-softplus"] > alone > 0


@pytest.mark.parametrize(
    ("run", "part", "two", "more"),
    [(RUN, "patch", "pgd-40 ce, margin", "worst of"), ("trade-off-mnist-small", None, "worst of", "standard")],
)
def test_lowered_compares_the_same_models(functions, run, part, two, more):
    """Again by hand, for every method, network and meta-seed: the ensemble after two PGDs, and by itself."""
    names = ("part", "model", "method", "meta_seed", "step", "seed")
    rows = [row for row in quote.recorded(run)[1] if row["metric"] == "robust accuracy" and part in (None, row["part"])]
    under = [
        {tuple(row[name] for name in names): row["value"] for row in rows if row["attack"].startswith(attack)}
        for attack in (two, more)
    ]
    falls = {}
    for model in under[0].keys() & under[1].keys():
        falls.setdefault(model[:-1], []).append(100 * (under[0][model] - under[1][model]))
    falls = [fmean(mine) for mine in falls.values()]
    assert len(falls) > 20
    asked = f'lowered("{run}"' + (f', part="{part}")' if part else ")")
    found = [evaluate(f"{which}({asked})", functions) for which in ("min", "max", "mean")]
    assert found == pytest.approx([min(falls), max(falls), fmean(falls)])


def test_benches_and_manifests_can_be_asked(functions):
    level = evaluate('value("bench/peers", "robust", attack="standard", library="metarobust")', functions)
    assert "trained as usual, linf, 0.1" in level
    assert evaluate(f'fact("{RUN}", "spec/eps")', functions) == 0.1
    assert set(evaluate(f'fact("{RUN}", "spec/training/*")', functions)) == {"steps", "batch_size", "lr"}
    assert evaluate(f'seeds("{RUN}")', functions) == len(quote.recorded(RUN)[0]["spec"]["seeds"])
    assert evaluate(f'minutes("{RUN}")', functions) == quote.recorded(RUN)[0]["wall_seconds"] / 60
    assert evaluate(f'made("{RUN}", "PGD-7 training")', functions) > 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'acc("{RUN}", "lerned")', "no rows with method 'lerned' are left; there are 'before', 'sgd'"),
        (f'acc("{RUN}", "learned", model="mlp-63")', "'mlp-64-sigmoid'"),
        (f'acc("{RUN}", "learned", "fast")', "unknown metric 'fast'; choose one of robust, clean"),
        (f'acc("{RUN}", "learned", modle="x")', "unexpected keyword argument 'modle'; it takes run, method"),
        ('acc("pach-mnist-small", "learned")', "did you mean 'patch-mnist-small'"),
        ('acc("bench/peer", "learned")', "did you mean 'bench/peers'"),
        ('acc("train-cifar10-full", "learned")', "train-cifar10-full is not recorded"),
        ('value("bench/peers", "speed")', "unknown column of bench/peers 'speed'"),
        ('value("bench/peers", "loss")', "does not hold a number in every row"),
        (f'fact("{RUN}", "spec/epsilon")', "did you mean 'eps'"),
        (f'fact("{RUN}", "spec/dataset")', "is no number"),
        (f'best("{RUN}", tier="3")', "there are '', '0'"),
        ('published("Madry et al., released", "PGD")', "unknown published figure"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(functions, text, says):
    with pytest.raises(InputError, match=re.escape(says)):
        evaluate(text, functions)


# ------------------------------------------------------------------------------------------------------- citing, pages


def test_numbers_are_cited_by_claim_and_name():
    price = ledger()["patch-mnist-price"].findings
    assert cite("patch-mnist-price") == price[0].shown
    assert cite("patch-mnist-price more") == price[1].shown
    old = "It costs <!-- claim patch-mnist-price -->99 points<!-- end -->, they say."
    assert renew(old) == f"It costs <!-- claim patch-mnist-price -->{price[0].shown}<!-- end -->, they say."
    assert cited(old + " {claim}`attacks-time share`") == ["attacks-time", "patch-mnist-price"]
    assert json.loads(renew(json.dumps({"source": old})))["source"] == renew(old)
    below = old.replace("99 points", "−0.7 to < 0.1 points")
    assert renew(f"{below} {below}") == f"{renew(old)} {renew(old)}", "a bound is a number like others"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("patch-mnist-prize", "did you mean 'patch-mnist-price'"),
        ("patch-mnist-price most", "choose one of price, more"),
        ("larger-models", "'larger-models' is not tested (runs at scale full"),
    ],
)
def test_what_cannot_be_cited(words, says):
    with pytest.raises(InputError, match=re.escape(says)):
        cite(words)


def test_the_page_gives_verdict_number_range_and_run_of_every_claim():
    judged = list(ledger().values())
    for origin in ORIGINS:
        text = section(judged, origin)
        for one in (one for one in judged if one.claim.origin == origin):
            assert f"(claim-{one.claim.id})=\n**{one.verdict.capitalize()}.** {one.text}" in text
            for finding in one.findings:
                assert finding.evidence.value in text
                if not finding.evidence.context:
                    assert f"- {finding.evidence.says}: " in text
                    assert f"**{finding.shown}**" in text or finding.found is None
    counts = re.findall(r"\d+", overview(judged))
    assert sum(map(int, counts)) == len(judged)


def test_runs_of_an_expression():
    assert runs('acc("patch-mnist-small", "learned") - value("bench/peers", "robust") > 2') == [RUN, "bench/peers"]
    there = Records(quote.FOLDER).names
    assert all(name in there for claim in load(FILE) for one in claim.evidence for name in runs(one.value))
