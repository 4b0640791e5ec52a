"""The words of the chat page. The browser's language decides between them; the page's settings can change it."""

from __future__ import annotations

ENGLISH = {
    "placeholder": "Write a message…",
    "empty": "Ask something to begin",
    "settings": "Model and sampling",
    "message": "Message",
    "send": "Send",
    "attach": "Add files",
    "copy": "Copy message",
    "large": "Fullscreen",
    "stop": "Stop",
    "undo": "Undo",
    "stopped": "stopped",
    "tokens": "tokens",
    "model": "Model",
    "base": "base model",
    "system": "System prompt",
    "system_hint": "How the model should behave",
    "temperature": "Temperature",
    "temperature_hint": "0 always takes the likeliest word",
    "top_p": "Top-p",
    "max_tokens": "Longest answer (tokens)",
    "clear": "New chat",
}
EXAMPLES = ("Who are you?", "你是谁？", "Write a Python function that reverses a string.")
"""What the empty page offers to ask."""
CHINESE = {
    "placeholder": "输入消息…",
    "empty": "说点什么，开始对话",
    "settings": "模型与采样",
    "message": "消息",
    "send": "发送",
    "attach": "添加文件",
    "copy": "复制",
    "large": "全屏",
    "stop": "停止",
    "undo": "撤销",
    "stopped": "已停止",
    "tokens": "token",
    "model": "模型",
    "base": "基础模型",
    "system": "系统提示词",
    "system_hint": "希望模型如何表现",
    "temperature": "温度",
    "temperature_hint": "0 表示总是选最可能的词",
    "top_p": "Top-p",
    "max_tokens": "回答的最大长度（token）",
    "clear": "新对话",
}
