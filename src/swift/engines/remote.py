"""The remote backend: a server that speaks the OpenAI API, anywhere, behind the Engine protocol.

The prompt goes out as token ids to `/v1/completions`, so that the server renders nothing and the prompt is the one that
training saw. vLLM and this project's own server take token ids; a server that does not is refused with a message.
"""

from __future__ import annotations
