"""The peloton: N bikers as numpy arrays, and how they ride one race.

Three layers, from lasting to fleeting:

* :class:`Traits` belong to a racer id and nothing else. Whoever rides as racer 101 is as strong in every race
  of every seed, so records across races mean something.
* The form of the day belongs to (seed, race, class, racer).
* Each second adds what happens on the road: the course, fatigue, a wandering mood, attacks, the sprint.

Every random number is a hash of (seed, race, class, racer id, second), not the next draw of a generator. So a
biker rides the same race whoever else is in it, and load generators that share a race out by racer id produce
together exactly what one would. The hash is integer arithmetic of our own: no library's stream of random
numbers can change under a seed that somebody wrote down.

A ride is simulated second by second over all bikers at once: time is O(seconds x racers), and memory beyond
the two result arrays (2 bytes a sample each) is O(racers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CADENCE_MIN_TENTHS, CADENCE_MAX_TENTHS = 300, 900
"""Cadence of a bike: 30.0 to 90.0 rpm."""
RESISTANCE_MIN_TENTHS, RESISTANCE_MAX_TENTHS = 330, 860
"""Resistance of a bike: 33.0 to 86.0, a scale without a unit."""

FloatArray = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Tenths = npt.NDArray[np.int16]
_Keys = npt.NDArray[np.uint64]
_Profile = Callable[[FloatArray, int], FloatArray]


@dataclass(frozen=True, slots=True)
class Course:
    """What the riders of a class have in front of them.

    ``effort`` and ``gradient`` take the seconds from the start, as an array, and the length of the race in
    seconds. Effort is how hard everybody rides, in the unit of ability (one standard deviation is about one);
    gradient runs from -1, downhill, to 1, steep: it costs cadence, asks for resistance, and suits climbers.
    """

    class_id: int
    name: str
    about: str
    effort: _Profile
    gradient: _Profile
    attacks_per_minute: float
    restlessness: float


def _flat(t: FloatArray, seconds: int) -> FloatArray:
    return np.zeros_like(t)


def _ripple(t: FloatArray, seconds: int) -> FloatArray:
    return 0.12 * np.sin(2 * np.pi * t / 45)


def _two_climbs(t: FloatArray, seconds: int) -> FloatArray:
    """Up from 15 % to 40 % of the race and from 60 % to 90 %, the second time steeper, then down."""
    corners = [0.0, 0.15, 0.25, 0.40, 0.46, 0.55, 0.60, 0.72, 0.90, 0.94, 1.0]
    heights = [0.0, 0.0, 0.7, 0.7, -0.6, -0.4, 0.0, 0.9, 1.0, -0.3, 0.0]
    return np.interp(t / seconds, corners, heights)


def _rolling(t: FloatArray, seconds: int) -> FloatArray:
    return 0.55 * np.sin(2 * np.pi * t / 37) + 0.30 * np.sin(2 * np.pi * t / 13 + 1.0)


def _up_the_climbs(t: FloatArray, seconds: int) -> FloatArray:
    """Riders dig where it is steep and rest on the way down."""
    return 0.5 * _two_climbs(t, seconds)


def _over_the_hills(t: FloatArray, seconds: int) -> FloatArray:
    return 0.7 * _rolling(t, seconds)


def _intervals(t: FloatArray, seconds: int) -> FloatArray:
    """Eight to a race, two thirds hard and one third easy; never shorter than 6 s, never longer than 45 s."""
    period = min(max(seconds / 8, 6.0), 45.0)
    return np.where(t % period < period * 2 / 3, 0.8, -1.2)


def _laps(t: FloatArray, seconds: int) -> FloatArray:
    """A lap of 24 s with two corners: brake, then three seconds out of the saddle."""
    corners = [0.0, 8.0, 9.0, 10.0, 13.0, 19.0, 20.0, 21.0, 24.0]
    efforts = [0.0, 0.0, -1.6, 1.1, 0.1, 0.1, -1.2, 0.9, 0.0]
    return np.interp(t % 24, corners, efforts)


def _negative_split(t: FloatArray, seconds: int) -> FloatArray:
    return -0.4 + 1.0 * t / seconds


COURSES: Mapping[int, Course] = {
    course.class_id: course
    for course in (
        Course(1, "steady", "a flat road, and whoever holds the pace", _flat, _ripple, 0.5, 0.8),
        Course(2, "climbs", "two climbs, the second steeper", _up_the_climbs, _two_climbs, 0.5, 0.8),
        Course(3, "intervals", "two thirds hard, one third easy", _intervals, _flat, 0.3, 0.7),
        Course(4, "rolling hills", "short hills, no rhythm", _over_the_hills, _rolling, 1.0, 1.0),
        Course(5, "criterium", "24-second laps, two corners, many attacks", _laps, _ripple, 4.0, 1.2),
        Course(6, "time trial", "alone, and faster to the end", _negative_split, _flat, 0.0, 0.5),
    )
}
"""The six classes, by ``classId``."""

_ROSTER = """
Ada Agnès Aiko Amara Anton Arjun Åsa Astrid Beatriz Bilal Björn Bruna Camille Chidi Clémence Dagny Darius
Diego Dilnoza Eamon Ekaterina Elif Émile Esra Farid Fatou Fionn Frieda Gael Giulia Goran Gülşen Hana Håkon
Hubert Ignacio Ileana Imani İpek Ivo Jasper Jiří Joaquín Jūratė Kaito Katarzyna Kwame Laleh Lars Liên Łukasz
Mael Maarja Matěj Mireille Nadia Ngọc Niamh Nils Noor Octavia Odd Oksana Ömer Orla Paolo Petra Quentin Radu
Renée Rosa Ruairí Saoirse Siobhán Søren Tamar Þóra Tomás Uma Ursula Vera Viggo Wanjiru Wim Xavi Ximena Yara
Yusuf Željko Zoë Zsófia Αλέξης Борис Мария 美咲 健太 지우
"""
FIRST_NAMES = tuple(_ROSTER.split())
"""Many are not ASCII, to keep encoders honest; none is written from right to left, to keep boards aligned."""


@dataclass(frozen=True, slots=True, eq=False)
class Traits:
    """What lasts, one float64 a racer, each about normal with mean 0 and deviation 1 and within -3.5..3.5."""

    ability: FloatArray
    endurance: FloatArray
    climbing: FloatArray
    sprint: FloatArray
    style: FloatArray
    """Positive: spins a light gear; negative: pushes a heavy one."""


@dataclass(frozen=True, slots=True, eq=False)
class Ride:
    """What the bikes measured: read-only int16 arrays of shape (seconds, racers), in tenths.

    Row ``s - 1`` is second ``s``. Always within the bounds above.
    """

    cadence_tenths: Tenths
    resistance_tenths: Tenths


# How a ride is put together: tuned so that the bests of 1,000 riders spread over some 60 units of output, who
# is good in one race is usually but not always good in the next (correlation about 0.7), most riders are at
# their best in the sprint or on the hard parts, and fewer than 1 sample in 1,000 lies on a bound.
_ABILITY_WEIGHT = 0.75
_FORM_WEIGHT = 0.40
_CLIMBING_WEIGHT = 0.50
_FATIGUE_BY_FINISH = 0.9
_SPRINT_GAIN = 1.6
_ATTACK_GAIN = 1.1
_ATTACK_KEPT_PER_S = 0.75
_DRIFT_KEPT_PER_S = 0.9
_DRIFT_PER_S = 0.20


def traits(racer_ids: Ids) -> Traits:
    """The lasting abilities of ``racer_ids``: a pure function of each id."""
    return Traits(*(_normal(_hash(_LASTING, racer_ids, trait)) for trait in range(5)))


def racer_names(racer_ids: Ids) -> tuple[str, ...]:
    """First names, a pure function of each racer id; many racers share one."""
    picks = _hash(_LASTING, racer_ids, _NAME) % np.uint64(len(FIRST_NAMES))
    return tuple(map(FIRST_NAMES.__getitem__, picks.tolist()))


def spread_phases_ms(racer_ids: Ids, *, seed: int, race_index: int = 0, class_id: int = 1) -> Ids:
    """When within a second each bike sends: uniform over 0..999 ms, by (seed, race, class, racer)."""
    return (_hash(_key(seed, race_index, class_id), racer_ids, _PHASE) % np.uint64(1000)).astype(np.int64)


def ride(racer_ids: Ids, *, seconds: int, class_id: int, seed: int, race_index: int = 0) -> Ride:
    """Ride one race of ``seconds`` over the course of ``class_id``.

    The result is a function of the arguments alone; column ``i`` depends on ``racer_ids[i]`` and no other id.
    Arguments are taken as valid: :func:`simulator.race.plan_race` is where users' input is checked.
    """
    course = COURSES[class_id]
    key = _key(seed, race_index, class_id)
    riders = traits(racer_ids)
    own_key = _hash(key, racer_ids, _SECONDS)
    level = _ABILITY_WEIGHT * riders.ability + _FORM_WEIGHT * _normal(_hash(key, racer_ids, _FORM))
    tiring = np.maximum(1.0 - 0.28 * riders.endurance, 0.1)
    kick = np.maximum(1.0 + 0.5 * riders.sprint, 0.0)

    clock = np.arange(seconds, dtype=np.float64)
    effort, gradient = course.effort(clock, seconds), course.gradient(clock, seconds)
    sprint_s = min(max(seconds // 10, 1), 20)
    sprinting = np.clip((clock - (seconds - sprint_s - 1)) / sprint_s, 0.0, 1.0)
    attack_share = course.attacks_per_minute / 60

    cadence = np.empty((seconds, len(racer_ids)), np.int16)
    resistance = np.empty_like(cadence)
    drift = course.restlessness * _normal(_hash(key, racer_ids, _MOOD))
    drift *= _DRIFT_PER_S / (1 - _DRIFT_KEPT_PER_S**2) ** 0.5
    attack = np.zeros(len(racer_ids))
    tired = np.zeros(len(racer_ids))
    for second in range(seconds):
        drift *= _DRIFT_KEPT_PER_S
        drift += (course.restlessness * _DRIFT_PER_S) * _normal(_hash_step(own_key, 2 * second))
        lanes = _lanes(_hash_step(own_key, 2 * second + 1))
        attack *= _ATTACK_KEPT_PER_S
        attack += (lanes[0] < attack_share) * (_ATTACK_GAIN - attack)
        # Above the rider's own level: this is what tires, and tiredness never goes below fresh.
        above = drift + attack
        above += effort[second]
        above += (_CLIMBING_WEIGHT * gradient[second]) * riders.climbing
        if sprinting[second]:
            above += (_SPRINT_GAIN * sprinting[second]) * kick
        tired += (0.7 + 0.5 * above) * tiring * (_FATIGUE_BY_FINISH / seconds)
        np.maximum(tired, 0.0, out=tired)
        drive = level + above
        drive -= tired

        rpm = 66.0 - 7.0 * gradient[second] + 2.6 * riders.style + 4.0 * drive
        rpm += 2.4 * (lanes[1] + lanes[2] - 1.0)
        load = 58.0 + 9.0 * gradient[second] - 2.2 * riders.style + 4.4 * drive
        load += 1.2 * (lanes[3] - 0.5)
        cadence[second] = np.clip(np.rint(rpm * 10), CADENCE_MIN_TENTHS, CADENCE_MAX_TENTHS)
        resistance[second] = np.clip(np.rint(load * 10), RESISTANCE_MIN_TENTHS, RESISTANCE_MAX_TENTHS)
    cadence.flags.writeable = resistance.flags.writeable = False
    return Ride(cadence, resistance)


# -- hashing -----------------------------------------------------------------------------------------
# SplitMix64 (Steele, Lea and Flood, 2014): a counter times the golden ratio, then a finaliser that mixes it.
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST_FACTOR = 0xBF58476D1CE4E5B9
_SECOND_FACTOR = 0x94D049BB133111EB
_MASK_64 = (1 << 64) - 1
_LASTING = 0

# What a hash is for; 0 to 4 are the traits.
_NAME, _FORM, _MOOD, _PHASE, _SECONDS = 5, 6, 7, 8, 9


def _key(seed: int, race_index: int, class_id: int) -> int:
    """One 64-bit number for a race. Lasting things use :data:`_LASTING` instead."""
    key = 1
    for part in (seed, race_index, class_id):
        key = int(_finalise(np.array([(key * _GOLDEN + part) & _MASK_64], np.uint64))[0])
    return key


def _hash(key: int, racer_ids: Ids, purpose: int) -> _Keys:
    mixed = _finalise(racer_ids.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(key))
    return _hash_step(mixed, purpose)


def _hash_step(keys: _Keys, step: int) -> _Keys:
    return _finalise(keys + np.uint64((step + 1) * _GOLDEN & _MASK_64))


def _finalise(x: _Keys) -> _Keys:
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(_FIRST_FACTOR)
    x ^= x >> np.uint64(27)
    x *= np.uint64(_SECOND_FACTOR)
    x ^= x >> np.uint64(31)
    return x


def _lanes(x: _Keys) -> FloatArray:
    """Four independent uniforms in [0, 1) a hash, shape (4, racers)."""
    parts = x.astype("<u8", copy=False).view("<u2").reshape(-1, 4)
    return parts.T.astype(np.float64) / 65536


def _normal(x: _Keys) -> FloatArray:
    """About normal: four uniforms added. The tails end at 3.46 deviations, which keeps riders on the dial."""
    lanes = _lanes(x)
    total: FloatArray = lanes[0] + lanes[1] + lanes[2] + lanes[3]
    # Four times the mean of a lane, and the deviation of the sum of four.
    total -= 4 * (0.5 - 0.5 / 65536)
    total *= 3**0.5
    return total
