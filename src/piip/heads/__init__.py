"""Feature maps -> losses | predictions. Every head has these two verbs."""
