module github.com/etcd-lifeboat/lifeboat/e2e/etcd23

go 1.26.0

require github.com/coreos/etcd v2.3.8+incompatible
