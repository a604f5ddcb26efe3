import pytest

from tf_largebatch.records.scaling import explain_rate, scale_factor, scaled_rate


@pytest.mark.parametrize(
    ("rule", "base", "batch", "reference", "rate"),
    [
        ("linear", 0.1, 8192, 256, 3.2),  # Goyal et al. §5.1
        ("linear", 0.1, 32768, 256, 12.8),  # Akiba et al.
        ("none", 0.1, 8192, 256, 0.1),  # Goyal et al. Table 2(a), the row without scaling
        ("sqrt", 0.1, 8192, 256, 0.1 * 32**0.5),  # the same table, square root
        ("sqrt", 0.04, 512, 32768, 0.005),  # LAMB, untuned: 4 / (2^3 * 100)
        ("sqrt", 0.04, 8192, 32768, 0.02),  # LAMB, untuned: 4 / (2^1 * 100)
    ],
)
def test_published_rates_follow_their_rule(rule, base, batch, reference, rate):
    assert scaled_rate(rule, base, batch, reference) == pytest.approx(rate, rel=1e-12)


def test_explanation_shows_the_arithmetic():
    assert explain_rate("linear", 0.1, 8192, 256) == "3.2 = 0.1 x 8192 / 256 (linear)"
    assert (
        explain_rate("sqrt", 0.04, 512, 32768) == "0.005 = 0.04 x sqrt(512 / 32768) (square root)"
    )
    assert explain_rate("none", 0.1, 8192, 256) == "0.1 = 0.1 (not scaled with the batch)"


def test_an_unknown_rule_and_an_empty_batch_are_refused():
    with pytest.raises(ValueError, match="one of linear, sqrt, none. Received: rule='cubic'"):
        scale_factor("cubic", 1, 1)
    with pytest.raises(ValueError, match="Received: reference_batch=0"):
        scale_factor("linear", 1, 0)
