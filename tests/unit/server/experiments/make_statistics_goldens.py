#!/usr/bin/env python3
"""Writes tests/data/experiments/statistics_goldens.json: what SciPy, statsmodels and ddsketch say.

Needs scipy, statsmodels and ddsketch; the tests need only what it wrote.
Usage: make_statistics_goldens.py > tests/data/experiments/statistics_goldens.json
"""

import json

import numpy as np
from ddsketch import DDSketch
from scipy import stats
from scipy.special import gammaln
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower

RNG = np.random.default_rng(20251125)


def distributions():
    return {
        "normal_quantiles": [[p, stats.norm.ppf(p)] for p in (1e-6, 0.025, 0.5, 0.8, 0.995)],
        "normal_cdfs": [[z, stats.norm.cdf(z)] for z in (-6.0, -1.0, 0.0, 2.5)],
        "student_quantiles": [[p, df, stats.t.ppf(p, df)] for p, df in ((0.975, 3.7), (0.9, 254.0))],
        "student_p_values": [[t, df, 2 * stats.t.sf(abs(t), df)] for t, df in ((-2.1, 11.0), (9.0, 5.5))],
        "chi_squared_p_values": [[x, df, stats.chi2.sf(x, df)] for x, df in ((3.2, 1.0), (50.0, 4.0))],
    }


def welch():
    cases = []
    for n_t, n_c, shift in ((7, 12, 0.0), (40, 25, 0.6), (300, 30, 0.2)):
        treatment = RNG.lognormal(shift, 0.7, n_t)
        control = RNG.lognormal(0.0, 1.1, n_c)
        cases.append({
            "treatment": treatment.round(6).tolist(),
            "control": control.round(6).tolist(),
        })
        rounded = [np.array(cases[-1][k]) for k in ("treatment", "control")]
        result = stats.ttest_ind(*rounded, equal_var=False)
        cases[-1].update(effect=rounded[0].mean() - rounded[1].mean(), t=result.statistic,
                         degrees=result.df, p_value=result.pvalue)
    return cases


def clustered():
    """A mean with errors clustered by unit: with one regressor the correction is G / (G - 1)."""
    cases = []
    for units, mean_requests in ((12, 3), (60, 8)):
        requests = RNG.poisson(mean_requests, units) + 1
        unit = np.repeat(np.arange(units), requests)
        values = (RNG.normal(0, 1, units)[unit] + RNG.normal(2, 1, unit.size)).round(6)
        fit = OLS(values, np.ones_like(values)).fit(cov_type="cluster", cov_kwds={"groups": unit})
        cases.append({
            "counts": requests.tolist(),
            "sums": [values[unit == u].sum() for u in range(units)],
            "value": fit.params[0],
            "standard_error": fit.bse[0],
        })
    return cases


def always_valid():
    cases = []
    for effect, error, tau, alpha in ((0.1, 0.03, 0.05, 0.05), (-0.4, 0.1, 0.3, 0.01),
                                      (0.001, 0.5, 0.05, 0.05), (3.0, 0.02, 0.1, 0.001)):
        x = tau**2 / error**2
        z = effect / error
        cases.append({
            "effect": effect, "standard_error": error, "tau": tau, "alpha": alpha,
            "half_width": error * np.sqrt((1 + 1 / x) * np.log((1 + x) / alpha**2)),
            "p_value": min(1.0, np.sqrt(1 + x) * np.exp(-x * z * z / (2 * (1 + x)))),
            "one_sided": error * np.sqrt(2 * (1 + 1 / x) * np.log(1 + np.sqrt(1 + x) / (2 * alpha))),
        })
    return cases


def sample_ratio():
    cases = []
    for units, shares in (([5200, 4800], [0.5, 0.5]), ([51000, 49000], [0.5, 0.5]),
                          ([9100, 450, 450], [0.9, 0.05, 0.05]), ([3, 1, 0], [0.4, 0.3, 0.3])):
        n, p, c = np.array(units), np.array(shares), 1000.0
        log_factor = (gammaln(c) - gammaln(c + n.sum()) + (gammaln(c * p + n) - gammaln(c * p)).sum()
                      - (n * np.log(p)).sum())
        cases.append({"units": units, "shares": shares, "log_bayes_factor": log_factor,
                      "chi_squared_p_value": stats.chisquare(n, p * n.sum()).pvalue})
    return cases


def holm():
    cases = []
    for p_values in ([0.01, 0.04, 0.03, 0.005], [0.2], [0.9, 0.9, 0.001], [0.02, 0.02, 0.02]):
        cases.append({"p_values": p_values,
                      "adjusted": multipletests(p_values, method="holm")[1].tolist()})
    return cases


def power():
    cases = []
    for effect, alpha in ((0.1, 0.05), (0.03, 0.01), (0.5, 0.0125)):
        units = NormalIndPower().solve_power(effect_size=effect, alpha=alpha, power=0.8)
        cases.append({"effect": effect, "alpha": alpha, "units_per_arm": units,
                      "power_at_half": NormalIndPower().power(effect, units / 2, alpha)})
    return cases


def sketch():
    sketch = DDSketch(0.01)
    values = RNG.lognormal(-1.0, 1.5, 400).round(9)
    for value in values:
        sketch.add(value)
    return {
        "values": values.tolist(),
        "bins": [sketch._mapping.key(value) for value in values],
        "bin_values": [[key, sketch._mapping.value(key)] for key in (-900, -1, 0, 1, 250)],
        "quantiles": [[q, sketch.get_quantile_value(q)] for q in (0.1, 0.5, 0.9)],
    }


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.12g}")
    return int(value) if isinstance(value, np.integer) else value


def main():
    goldens = {"distributions": distributions(), "welch": welch(), "clustered": clustered(),
               "always_valid": always_valid(), "sample_ratio": sample_ratio(), "holm": holm(),
               "power": power(), "sketch": sketch()}
    sections = (f'"{name}": {json.dumps(rounded(value))}' for name, value in goldens.items())
    print("{" + ",\n".join(sections) + "}")


if __name__ == "__main__":
    main()
