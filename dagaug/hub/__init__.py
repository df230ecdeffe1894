"""The Hugging Face hub: names of its files, downloads, uploads, and the cards of repositories. Without torch."""
