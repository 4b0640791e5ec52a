"""Converters of single data sets with pictures, videos or sounds. What lies in an archive is named, not fetched."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from swift.data.media_archives import Member
from swift.prompts import values
from swift.prompts.bad_row import BadRow

Fields = Mapping[str, Any]
T = TypeVar("T")

SHARED = "hjh0119/sharegpt4v-images"
PLACES = {
    "coco/": ("coco.zip", ""),
    "gqa/": ("gqa.zip", ""),
    "ocr_vqa/": ("ocr_vqa.tar", "ocr_vqa/"),
    "textvqa/": ("textvqa.zip", ""),
    "vg/VG_100K/": ("VG_100K.zip", "VG_100K/"),
    "vg/VG_100K_2/": ("VG_100K_2.zip", "VG_100K_2/"),
    "sam/images/": ("sam.zip", ""),
    "llava/llava_pretrain/images/": ("llava.zip", ""),
    "wikiart/": ("wikiart.zip", "data/wikiart/"),
    "share_textvqa/": ("share_textvqa.zip", "data/share_textvqa/"),
    "web-celebrity/": ("web-celebrity.zip", "data/web-celebrity/"),
    "web-landmark/": ("web-landmark.zip", "data/web-landmark/"),
}
"""How the paths of the LLaVA family of data sets start: the archive of SHARED, and how the path starts in there."""

DESCRIBE = ("Describe this image.", "What does the picture show?", "Give a caption for this image.")
DESCRIBE_ZH = ("请描述这张图片。", "这张图片里有什么？", "说说图片的内容。")
LOCATE = (
    "Where is <ref-object>?",
    "Find <ref-object> in the image.",
    "Give the box around <ref-object>.",
    "<ref-object>在图片的什么位置？",
)
NAME_BOX = ("What is at <bbox>?", "Describe the thing at <bbox>.", "Name what <bbox> contains.", "<bbox>里是什么？")


def one_of(choices: Sequence[T], record_text: object) -> T:
    """One of several, spread over the records, and the same one in every run."""
    return choices[zlib.crc32(str(record_text).encode()) % len(choices)]


def shared_picture(path: Any, key: str) -> Member:
    """A picture of the archives that several data sets have in common. Raises BadRow for a path of none of them."""
    given = values.text(path, key)
    for start, (archive, inside) in PLACES.items():
        if given.startswith(start):
            return Member(inside + given.removeprefix(start), (archive,), SHARED)
    raise BadRow("missing file", key=key, expected=f"a path that starts with {', '.join(PLACES)}", value=given)


def dialogue_with_picture(record: Fields) -> dict[str, Any]:
    """LLaVA-Instruct, ShareGPT4V: a dialogue about a picture of the shared archives, or about none."""
    row: dict[str, Any] = {"conversations": record.get("conversations")}
    if record.get("image"):
        row["images"] = [shared_picture(record["image"], "image")]
    return row


def llava_data(record: Fields) -> dict[str, Any]:
    """The same with pictures as {path}, and roles; a record without a picture is not for training."""
    pictures = values.a_list(record.get("images"), "images")
    if not pictures:
        raise BadRow("not for training", key="images", expected="a picture", value=record.get("images"))
    shown = [shared_picture(_path(picture), f"images[{number}]") for number, picture in enumerate(pictures)]
    return {"messages": record.get("conversation"), "images": shown}


def mantis(record: Fields) -> dict[str, Any]:
    """A dialogue about several pictures, which lie in the archive of the subset."""
    pictures = values.a_list(record.get("images"), "images")
    if not pictures:
        raise BadRow("not for training", key="images", expected="pictures", value=record.get("images"))
    archive = ("{folder}/train_images.zip",)
    shown = [
        Member(values.text(_path(picture), f"images[{number}]"), archive) for number, picture in enumerate(pictures)
    ]
    return {"messages": record.get("conversation"), "images": shown}


def _path(picture: Any) -> Any:
    return picture.get("path") if isinstance(picture, Mapping) else picture


def dialogue_with_own_picture(folder: str = "") -> Callable[[Fields], dict[str, Any]]:
    """LLaVA-Pretrain, ShareGPT-4o: a dialogue about a picture in the `images.zip` of the repository itself."""

    def convert(record: Fields) -> dict[str, Any]:
        path = values.text(record.get("image"), "image")
        return {"conversations": record.get("conversations"), "images": [Member(folder + path, ("images.zip",))]}

    return convert


def gqa(record: Fields) -> dict[str, Any]:
    """A question about a picture, answered in a whole sentence."""
    picture = Member(f"images/{values.text(record.get('imageId'), 'imageId')}.jpg", ("gqa.zip",), SHARED)
    return {"query": record.get("question"), "response": record.get("fullAnswer"), "images": [picture]}


def refcoco(choices: Sequence[str], answer: str) -> Callable[[Fields], dict[str, Any]]:
    """A thing in a picture of COCO 2014 by its description and its box, in pixels; one is asked, the other answered."""

    def convert(record: Fields) -> dict[str, Any]:
        captions, box = values.a_list(record.get("captions"), "captions"), values.a_list(record.get("bbox"), "bbox")
        caption = values.text(captions[0] if captions else None, "captions[0]")
        if len(box) != 4:
            raise BadRow("wrong type", key="bbox", expected="four numbers", value=box)
        path = values.text(record.get("image_path"), "image_path").removeprefix("coco/")
        box = [round(float(side)) for side in box]
        return {
            "query": one_of(choices, f"{path} {caption}"),
            "response": answer,
            "images": [Member(path, ("coco_2014.zip",), "we_dont_produce_water/coco_res")],
            "objects": [{"caption": caption, "bbox": box, "bbox_type": "real", "image": 0}],
        }

    return convert


def grit(record: Fields) -> dict[str, Any]:
    """A caption whose phrases have boxes, in parts of the picture's width and height."""
    caption = values.text(record.get("caption"), "caption")
    phrases = sorted(values.a_list(record.get("ref_exps"), "ref_exps"), key=lambda phrase: tuple(phrase[:2]))
    pieces, objects, end = [], [], 0
    for start, stop, *box in phrases:
        if int(start) < end:
            raise BadRow("not for training", key="ref_exps", expected="phrases that do not overlap", value=phrases)
        pieces.append(caption[end : int(start)] + "<ref-object><bbox>")
        end = int(stop)
        objects.append({"caption": caption[int(start) : end], "bbox": box[:4], "bbox_type": "norm_1", "image": 0})
    return {
        "query": "Describe the image and say where the things in it are.",
        "response": "".join(pieces) + caption[end:],
        "images": record.get("url"),
        "objects": objects,
    }


def caption_of_link(
    picture: str, caption: Callable[[Fields], Any], choices: Sequence[str]
) -> Callable[[Fields], dict[str, Any]]:
    """A picture by its address and a caption."""

    def convert(record: Fields) -> dict[str, Any]:
        link = record.get(picture)
        return {"query": one_of(choices, link), "response": caption(record), "images": link}

    return convert


def _dense_caption(record: Fields) -> Any:
    parts = values.literal(record.get("cap_seg"), "cap_seg", "an object with global_caption")
    return parts.get("global_caption") if isinstance(parts, Mapping) else None


def _prose(record: Fields) -> str:
    return values.text(record.get("vlm_caption"), "vlm_caption").removeprefix("This image displays:").strip()


def caption_in_row(record: Fields) -> dict[str, Any]:
    """COCO: a picture and its caption, the first of several parted by &&."""
    caption = values.text(record.get("caption"), "caption").partition("&&")[0]
    return {"query": "please describe the image.", "response": caption, "images": record.get("image")}


def text_caps(record: Fields) -> dict[str, Any]:
    """A picture with writing in it, and one of its captions."""
    captions = values.a_list(record.get("reference_strs"), "reference_strs")
    caption = one_of(captions, record.get("image_id") or captions[0]) if captions else None
    return {"query": one_of(DESCRIBE, caption), "response": caption, "images": record.get("image")}


def answered_by(key: str) -> Callable[[Fields], dict[str, Any]]:
    """OK-VQA, A-OKVQA: a question about a picture, and one of several answers or reasons."""

    def convert(record: Fields) -> dict[str, Any]:
        question, answers = record.get("question"), values.a_list(record.get(key), key)
        answer = one_of(answers, question) if answers else None
        return {"query": question, "response": answer, "images": record.get("image")}

    return convert


def ocr_vqa(record: Fields) -> dict[str, Any]:
    """Several questions about the cover of a book, one of which is asked."""
    questions, answers = (values.a_list(record.get(key), key) for key in ("questions", "answers"))
    if not questions or len(questions) != len(answers):
        raise BadRow("wrong type", key="answers", expected="an answer to each question", value=answers)
    number = one_of(range(len(questions)), record.get("image_id") or questions)
    return {"query": questions[number], "response": answers[number], "images": record.get("image")}


def science_qa(record: Fields) -> dict[str, Any]:
    """A question with choices about a picture; the solution, then the choice."""
    choices, number = values.a_list(record.get("choices"), "choices"), record.get("answer")
    if not record.get("image"):
        raise BadRow("not for training", key="image", expected="a picture", value=record.get("image"))
    if not isinstance(number, int) or not 0 <= number < len(choices):
        raise BadRow("wrong type", key="answer", expected="the number of a choice", value=number)
    return {
        "query": f"{record.get('question')}\nChoices: {', '.join(map(str, choices))}",
        "response": f"{record.get('solution') or ''}\nSo the answer is {choices[number]}".strip(),
        "images": record["image"],
    }


def fixed_question(query: str, answer: str) -> Callable[[Fields], dict[str, Any]]:
    """A picture, the same question of each, and the answer in a column."""

    def convert(record: Fields) -> dict[str, Any]:
        return {"query": query, "response": record.get(answer), "images": record.get("image")}

    return convert


def rlaif_v(record: Fields) -> dict[str, Any]:
    """A question about a picture, a better and a worse answer."""
    answers = {"response": record.get("chosen"), "rejected_response": record.get("rejected")}
    return {"query": record.get("question"), **answers, "images": record.get("image")}


def m3it(record: Fields) -> dict[str, Any]:
    """An instruction, perhaps an input, and pictures as base64 text."""
    pictures = record.get("image_base64_str")
    pictures = [pictures] if isinstance(pictures, str) else values.a_list(pictures, "image_base64_str")
    return {
        "system": record.get("instruction"),
        "query": record.get("inputs") or "",
        "response": record.get("outputs"),
        "images": [_data_url(picture) for picture in pictures],
    }


def _data_url(picture: str) -> str:
    kind = "png" if picture.startswith("iVBOR") else "jpeg"
    return f"data:image/{kind};base64,{picture}"


def llava_mix_sft(record: Fields) -> dict[str, Any]:
    """Turns with content parts; the pictures stand beside them."""
    turns = []
    for item in values.a_list(record.get("messages"), "messages"):
        parts = [
            "<image>" if part.get("type") == "image" else str(part.get("text") or "")
            for part in values.a_list(item.get("content"), "content")
        ]
        turns.append({"role": item.get("role"), "content": "".join(parts)})
    return {"messages": turns, "images": record.get("images")}


ACTIONS = {
    "CLICK": ("Click an element of the page.", ("element",)),
    "TYPE": ("Write a text into an element of the page.", ("element", "content")),
    "SELECT": ("Choose an option of an element of the page.", ("element", "content")),
}
TOOLS = [
    {
        "name": name,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": {key: {"type": "string"} for key in keys},
            "required": list(keys),
        },
    }
    for name, (description, keys) in ACTIONS.items()
]


def mind2web(record: Fields) -> dict[str, Any]:
    """A task on a web page with its picture, what was done so far, and the next action as a call of a tool."""
    done = values.a_list(record.get("action_reprs"), "action_reprs")
    here = int(record.get("target_action_index") or 0)
    query = (
        f"The page:<image>\nIts HTML:\n{record.get('cleaned_html')}\nTask: {record.get('confirmed_task')}\n"
        f"Done so far: {'; '.join(map(str, done[:here])) or 'nothing'}"
    )
    target, arrow, action = values.text(record.get("target_action_reprs"), "target_action_reprs").rpartition("->")
    name, _, content = action.partition(":")
    given = {"element": target.strip(), "content": content.strip()} if arrow else {}
    given = {key: value for key, value in given.items() if value}
    answer = f"Action: {name.strip()}\nAction Input: {json.dumps(given, ensure_ascii=False)}"
    return {"query": query, "response": answer, "images": record.get("screenshot"), "tools": TOOLS}


def aishell1(record: Fields) -> dict[str, Any]:
    """Mandarin speech and its text."""
    spoken = values.text(record.get("Text:LABEL"), "Text:LABEL").replace(" ", "")
    return {"query": "语音转文本", "response": spoken, "audios": record.get("Audio:FILE")}


def video_chatgpt(record: Fields) -> dict[str, Any]:
    """A question about a video; where the column is empty, the first of a pair of questions."""
    questions = [record.get(key) for key in ("question", "question_1", "question_2")]
    video = Member(f"Test_Videos/{values.text(record.get('video_name'), 'video_name')}.mp4", ("videos.zip",))
    query = next((question for question in questions if question and question != "None"), None)
    return {"query": values.text(query, "question"), "response": record.get("answer"), "videos": [video]}


def egoschema(record: Fields) -> dict[str, Any]:
    """A question with five options about a video; the letter of the right one."""
    answer, options = str(record.get("answer")), values.a_list(record.get("option"), "option")
    if answer not in ("0", "1", "2", "3", "4"):
        raise BadRow("wrong type", key="answer", expected="the number of an option", value=record.get("answer"))
    archives = tuple(f"videos_chunked_{number:02d}.zip" for number in range(1, 6))
    return {
        "query": "\n".join([values.text(record.get("question"), "question"), *map(str, options)]),
        "response": "ABCDE"[int(answer)],
        "videos": [Member(f"videos/{values.text(record.get('video_idx'), 'video_idx')}.mp4", archives)],
    }


def moviechat(record: Fields) -> dict[str, Any]:
    """A film and the first question about the whole of it. The films lie beside the rows, unpacked."""
    about = values.a_list(record.get("global"), "global")
    if not about:
        raise BadRow("empty value", key="global", expected="a question about the film", value=about)
    path = values.text(record["info"].get("video_path"), "info.video_path")
    first = about[0]
    return {"query": first.get("question"), "response": first.get("answer"), "videos": [Member(f"videos/{path}")]}


def llava_video(record: Fields) -> dict[str, Any]:
    """A dialogue about a video, whose place in the text is written <image>."""
    turns = [
        {**turn, "value": values.text(turn.get("value"), "value").replace("<image>", "<video>")}
        for turn in values.a_list(record.get("conversations"), "conversations")
    ]
    archives = tuple(f"{{folder}}/{{folder}}_videos_{number}.tar.gz" for number in range(1, 100))
    return {"conversations": turns, "videos": [Member(values.text(record.get("video"), "video"), archives)]}


CONVERTERS: dict[str, Callable[..., Any]] = {
    "a_okvqa": answered_by("rationales"),
    "aishell1_dataset": aishell1,
    "capcha_images": fixed_question("What does the picture say?", "solution"),
    "egoschema": egoschema,
    "gqa": gqa,
    "grit": grit,
    "latex_ocr_dataset": fixed_question("Using LaTeX to perform OCR on the image.", "text"),
    "llava_data": llava_data,
    "llava_instruct_images": dialogue_with_picture,
    "llava_mix_sft": llava_mix_sft,
    "llava_pretrain": dialogue_with_own_picture(),
    "llava_video_178k": llava_video,
    "m3it": m3it,
    "mantis": mantis,
    "mind2web": mind2web,
    "moviechat_1k_test": moviechat,
    "ocr_vqa": ocr_vqa,
    "okvqa": answered_by("answers"),
    "pixelprose": caption_of_link("url", _prose, DESCRIBE),
    "refcoco_unofficial_caption": refcoco(NAME_BOX, "<ref-object>"),
    "refcoco_unofficial_grounding": refcoco(LOCATE, "<bbox>"),
    "rlaif_v": rlaif_v,
    "sa1b_dense_caption": caption_of_link("url", _dense_caption, DESCRIBE_ZH),
    "sa1b_paired_caption": caption_of_link("opensource_url", lambda record: record.get("global_caption"), DESCRIBE_ZH),
    "science_qa": science_qa,
    "sharegpt4v": dialogue_with_picture,
    "sharegpt_4o_images": dialogue_with_own_picture("mnt/petrelfs/wangwenhai/workspace_cef/4o/image/"),
    "text_caps": text_caps,
    "video_chatgpt": video_chatgpt,
    "vision_dataset": caption_in_row,
    "vision_dataset2": caption_in_row,
}
"""By the name the catalog uses."""
