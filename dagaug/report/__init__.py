"""The HTML report, contact sheets and figures."""
