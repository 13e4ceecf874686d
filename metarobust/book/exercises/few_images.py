"""Exercises of few images."""

from metarobust.book.exercises.check import function, number

# 100 steps of 64 images out of 50: how often does each come up, on average?
times_seen = number(
    128,
    {
        6400: "that is how many images are drawn in all. There are fifty different ones.",
        640: "that is for each class. How many images does a class have?",
        100: "that would be each image once in a step. A step draws 64 out of 50.",
        896: "drawn, not attacked: the seven steps of an attack move the same image.",
    },
    first="how many images are drawn in a hundred steps?",
    passed="6,400 draws out of 50 images: 128 times each. With 400 images it is 16 times.",
    exact=True,
)


@function(first="which list may decide, and which may only report?", stops="held_out and test are of equal length.")
def stopped(stop):
    """`stop(held_out, test)`: the place where held_out is best, the first of equals, and what test says there."""
    held_out, test = [0.30, 0.42, 0.55, 0.51, 0.55, 0.40], [0.28, 0.40, 0.47, 0.52, 0.50, 0.56]
    result = stop(held_out, test)
    two = isinstance(result, tuple | list) and len(result) == 2
    yield two, "it does not return a place and an accuracy.", "return place, test[place]."
    place, value = result
    yield place != 5, "it stops where the test is best.", "the test decides here. Find the place in held_out."
    yield place != 4, "of two equals it takes the later one.", "stop at the first: later ones cost more steps."
    yield place == 2, f"it stops at place {place}, not at 2.", "places count from 0; the largest of held_out."
    yield value == test[2], f"it reports {value}, not what the test says there.", "return test[place], not held_out's."
    yield stop([0.9, 0.1], [0.2, 0.8]) == (0, 0.2), "it misses a best place at the start.", "look at all places."
