// Data that must survive a closed page: unfinished corrections, those waiting for the network, finished work.

const NAME = "glioflow", STORES = ["drafts", "waiting", "done"];
let opened = null;

function open() {
  opened ??= new Promise((done, failed) => {
    const asked = indexedDB.open(NAME, 1);
    asked.onupgradeneeded = () => STORES.forEach((store) => asked.result.createObjectStore(store));
    asked.onsuccess = () => done(asked.result);
    asked.onerror = () => failed(asked.error);
  });
  return opened;
}

async function act(store, mode, make) {
  const database = await open();
  return new Promise((done, failed) => {
    const transaction = database.transaction(store, mode), asked = make(transaction.objectStore(store));
    transaction.oncomplete = () => done(asked.result);
    transaction.onerror = transaction.onabort = () => failed(transaction.error);
  });
}

// A browser that stores nothing (private window, full disk) must not block work: reads give null.
export const put = (store, key, value) => act(store, "readwrite", (place) => place.put(value, key));
export const get = (store, key) => act(store, "readonly", (place) => place.get(key)).catch(() => null);
export const drop = (store, key) => act(store, "readwrite", (place) => place.delete(key)).catch(() => null);
export const keys = (store) => act(store, "readonly", (place) => place.getAllKeys()).catch(() => []);
