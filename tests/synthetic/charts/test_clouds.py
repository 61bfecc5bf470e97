from __future__ import annotations

from sailvit.core.seeding import numpy_generator
from sailvit.synthetic.charts.captions import caption_of
from sailvit.synthetic.charts.clouds import cloud_questions, draw_cloud


def clouds():
    for number in range(300):
        rng = numpy_generator(1, number)
        yield draw_cloud(rng), rng


def test_points_lie_apart_on_the_half_grid_inside_the_frame():
    for cloud, _ in clouds():
        points = cloud.everything
        assert len(set(points)) == len(points)
        assert all(group for group in cloud.points)
        for axis in (0, 1):
            along = [point[axis] for point in points]
            assert 0 < min(along) <= max(along) < cloud.tops[axis]
            assert all(2 * value % cloud.steps[axis] == 0 for value in along)


def test_answers_follow_from_the_points():
    seen = set()
    for cloud, rng in clouds():
        for form, text, answer in cloud_questions(rng, cloud, 100):
            seen.add(form)
            sizes = dict(zip(cloud.groups, map(len, cloud.points), strict=True))
            if form == "points":
                assert answer == str(len(cloud.everything))
            elif form == "end point":
                axis = int(cloud.y in text.split(" with the ")[1])
                word = "highest" if "highest" in text else "lowest"
                wanted = (max if word == "highest" else min)(
                    point[axis] for point in cloud.everything
                )
                assert [str(p[1 - axis]) for p in cloud.everything if p[axis] == wanted] == [answer]
                assert text.endswith(f"in {cloud.units[1 - axis]}?")
            elif form == "group size":
                assert [
                    str(size) for name, size in sizes.items() if text.endswith(f"to {name}?")
                ] == [answer]
            elif form == "most points":
                assert [name for name, size in sizes.items() if size == max(sizes.values())] == [
                    answer
                ]
            elif form == "colour":
                pairs = zip(cloud.groups, cloud.colours.names, strict=True)
                assert [colour for name, colour in pairs if text.endswith(f"for {name}?")] == [
                    answer
                ]
    assert seen == {"points", "title", "kind", "end point", "group size", "most points", "colour"}


def test_captions_count_the_points():
    for cloud, rng in clouds():
        assert f"for {len(cloud.everything)} points" in caption_of(rng, cloud)
