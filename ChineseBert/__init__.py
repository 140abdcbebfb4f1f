"""ChineseBERT (Sun et al. 2021, arXiv 2106.16038): BERT that also sees how a character sounds and looks.

    import ChineseBert

    tokenizer = ChineseBert.load_tokenizer("path/to/ChineseBERT-base")
    model = ChineseBert.load_model("path/to/ChineseBERT-base", id2label={0: "O", 1: "B-PER"})
    logits = model(**tokenizer("我们在北京", return_tensors="pt")).logits

Importing the package registers it with transformers: `AutoConfig`, `AutoModel`,
`AutoModelForTokenClassification` and `AutoTokenizer` then load a folder that `save_pretrained` wrote.
"""

from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, AutoTokenizer

from ChineseBert.configuration import ChineseBertConfig
from ChineseBert.loading import is_chinesebert_folder, load_model, load_tokenizer, resolve
from ChineseBert.modeling import ChineseBertForTokenClassification, ChineseBertModel
from ChineseBert.tokenization import ChineseBertTokenizer

AutoConfig.register(ChineseBertConfig.model_type, ChineseBertConfig)
AutoModel.register(ChineseBertConfig, ChineseBertModel)
AutoModelForTokenClassification.register(ChineseBertConfig, ChineseBertForTokenClassification)
AutoTokenizer.register(ChineseBertConfig, tokenizer_class=ChineseBertTokenizer)

__all__ = [
    "ChineseBertConfig",
    "ChineseBertForTokenClassification",
    "ChineseBertModel",
    "ChineseBertTokenizer",
    "is_chinesebert_folder",
    "load_model",
    "load_tokenizer",
    "resolve",
]
