-- Which programs can work with what a schema file makes: `oldest` is the schema that they must know at least. Every file
-- from here on says so, in a line like the next one, and a delegator starts on files that it does not know where all of
-- them suit it. Empty for the files before this one, which none of them has to ask about.
-- Programs from schema 11 on work with this.

ALTER TABLE schema_files ADD COLUMN oldest INTEGER;
