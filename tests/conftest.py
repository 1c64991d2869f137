"""How hard Hypothesis tries: the same examples on every run, or new ones with HYPOTHESIS=explore.

HYPOTHESIS=first ends with the first example that fails, without making it small: `mutation` asks no more.
"""

import os

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
settings.register_profile("explore", settings.get_profile("steady"), derandomize=False)
settings.register_profile("first", settings.get_profile("steady"), phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS", "steady"))
