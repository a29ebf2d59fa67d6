package walcodec

// PeekRequest returns method and path of a v2 request without decoding the
// rest; they alias data. Nothing is checked beyond them.
func PeekRequest(data []byte) (method, path []byte) {
	f := fieldsOf(data)
	for f.next() {
		switch f.tag {
		case 2<<3 | wireBytes:
			method = f.data
		case 3<<3 | wireBytes:
			return method, f.data
		}
	}
	return method, nil
}
