"""The OpenAI API over any engine: schema, routes, limits, metrics and the server that drains."""
