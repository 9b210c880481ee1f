//! `encamp mail test`: one mail by the way that every mail goes, each step told.
