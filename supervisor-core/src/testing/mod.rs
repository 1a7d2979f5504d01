//! Hand-written fakes and one contract suite per trait.
