package s3_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/s3"
)

func ExampleOpen() {
	ctx := context.Background()
	store, err := s3.Open(ctx, s3.Options{
		Bucket:    "backups",
		Prefix:    "etcd",
		Endpoint:  "https://s3.example.com:9000",
		PathStyle: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	obj, err := store.Put(ctx, "hello", strings.NewReader("world"), storage.PutOptions{CreateOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(obj.Size)
}
