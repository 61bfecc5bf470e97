"""Ask the model of a run about a picture."""

import sys

import sailvit


def main(run, image, question="What is shown?"):
    model = sailvit.load_run(run)
    answer = model.generate(image, question, max_new_tokens=32)
    print(answer)
    # Several questions at once: one entry of images for each, None where there is none.
    return [answer, *model.generate([image, None], [question, "What is red?"], max_new_tokens=32)]


if __name__ == "__main__":
    main(*sys.argv[1:])
