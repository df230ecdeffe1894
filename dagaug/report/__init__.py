"""Reports: HTML page, contact sheets, and figures for papers."""
