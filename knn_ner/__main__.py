"""All commands: `knn-ner` or `python -m knn_ner` lists them, and `knn-ner train ...` runs one."""

import runpy
import sys

# Command to what it does; each is a module or a package of knn_ner that `python -m` runs, too.
COMMANDS = {
    "train": "train a tagger",
    "build_datastore": "store the hidden state and the label of every word piece of a split",
    "infer": "tag a split with the mix of tagger and neighbours, and score both",
    "tune": "choose k, temperature and knn_weight on the dev split",
    "predict": "find the entities of texts",
    "explain": "show on one page what the neighbours changed, and the neighbours",
    "audit": "list the stored labels that look wrong",
    "demo": "try a tagger with its datastore in the browser",
    "datastore": "look at a datastore, and change it without building it anew",
    "build_index": "build a FAISS index of a datastore",
    "experiment": "train, build, tune and test with many seeds; intervals and p-values of the gain",
    "compare": "show several experiments side by side",
    "tables": "print the paper's tables, published beside measured",
    "import_checkpoint": "turn a Lightning checkpoint of other code into a tagger",
}


def main() -> None:
    """Run a command, or list all of them."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
        print("usage: knn-ner COMMAND [--help] ...\n\ncommands:", *lines, sep="\n")
        return
    if words[0] not in COMMANDS:
        print(f"error: no command {words[0]!r}; see knn-ner --help", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"{sys.argv[0]} {words[0]}", *words[1:]]
    runpy.run_module(f"knn_ner.{words[0]}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
