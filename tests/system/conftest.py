"""The system whose code and settings are changed, after the tests of the demo."""

import pytest

from tests.conftest import System
from tests.system.changing_site import Site


@pytest.fixture(scope="session")
def changed_site(system: System) -> Site:
    """The site, as the tests before have left it."""
    return Site(system)


@pytest.fixture
def site(changed_site: Site) -> Site:
    """The site, with channels for this test."""
    changed_site.next_test()
    return changed_site
