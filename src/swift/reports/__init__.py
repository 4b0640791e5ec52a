"""What runs leave behind, for people: their files read, their curves as SVG, and pages that open without a network."""
