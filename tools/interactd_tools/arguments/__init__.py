"""From the arguments a host sends to checked values, or to one readable line that says what is wrong."""
