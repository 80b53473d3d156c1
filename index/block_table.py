"""What a line of the block table says: the addresses of a block's arrays, for the compiled loops."""

LIVE, FIRST = 1, 2  # flags of a row: it counts; its record begins here
SLOT_SHIFT = 20  # an origin is slot << 20 | number of its (agency, gallery, sex)

# Columns: addresses of the block's arrays, then what is known of the block.
(CODES, SCALES, ERRORS, FLAGS, ORIGIN, PLACE, BORN_FROM, BORN_TO, EVENT_FROM, EVENT_TO, TAKEN_TO) = range(11)
(PHOTO, ROWS, USED, DEAD, MIXED) = range(11, 16)
BLOCK_FIELDS = 16
