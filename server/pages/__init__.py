"""Pages: following everything that one page shows, as one stream that can be resumed."""
