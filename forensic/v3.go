package forensic

import "errors"

var v3Types = []string{"txn"}

func (o *op) v3(data []byte) error { return errors.New("not yet") }

func (f *Facts) v3Version(it *item) {}
