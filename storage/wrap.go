package storage

// Wrapper is a store that adds something to another.
type Wrapper interface {
	Unwrap() Store
}

// As finds what a store can do beyond [Store], or the store that it wraps:
//
//	sweeper, ok := storage.As[storage.Sweeper](store)
func As[T any](s Store) (T, bool) {
	for {
		if t, ok := s.(T); ok {
			return t, true
		}
		w, ok := s.(Wrapper)
		if !ok {
			var none T
			return none, false
		}
		s = w.Unwrap()
	}
}
