package datadir

import (
	"context"
	"fmt"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

func TestPrint(t *testing.T) {
	for _, name := range fixture.Names() {
		d, err := Inspect(context.Background(), fixture.DataDir(t, name), Options{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s: live %v ids %x base %+v\n log %+v mark %+v\n backend %+v\n started %x removed %v\n facts %+v\n", name, d.Live, d.IDs, d.Base, d.Log, d.Log.Mark, d.Backend, d.Started, d.Removed, d.Facts)
		for _, r := range Tested() {
			steps, err := d.Facts.For(r)
			fmt.Println(r, d.Facts.Boots(r), steps, err)
		}
		d.Close()
	}
}
