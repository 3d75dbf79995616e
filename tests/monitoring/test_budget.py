from __future__ import annotations

import threading

from servegraph.monitoring.budget import Budget


def test_charge_within_the_limit_is_held_until_it_is_dropped() -> None:
    budget = Budget(100)
    charge = budget.charge(60)
    assert charge is not None
    assert budget.held == 60
    assert budget.charge(41) is None
    del charge
    assert budget.held == 0
    assert budget.charge(100) is not None
    assert budget.refused == budget.refused == 1


def test_charges_from_many_threads_add_up_to_nothing_in_the_end() -> None:
    budget = Budget(10**9)

    def charge() -> None:
        for size in range(2000):
            budget.charge(size)

    threads = [threading.Thread(target=charge) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (budget.held, budget.refused) == (0, 0)
