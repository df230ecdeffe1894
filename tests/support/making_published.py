"""Tiny copies of published data sets in their true layouts: two classes of three training and one test image, 48 px."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from making_images import encoded, smooth_image
from PIL import Image
from scipy.io import savemat

SIDE = 48
CORNERS = (5, 9, 40, 36)
"""First and last column and row of the object, counted from 1, as xmin, ymin, xmax, ymax."""

BOX = (4.0, 8.0, 36.0, 28.0)
"""The same as x, y, width and height, counted from 0."""

TRAIN, TEST = (0, 1, 2, 4, 5, 6), (3, 7)
"""Numbers of the images of each split; images 0 to 3 are of the first class."""


def write_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if path.suffix == ".png" else "JPEG"
    path.write_bytes(encoded(smooth_image(SIDE, SIDE, seed=seed), kind))


def write_lines(path: Path, *lines: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_objects(path: Path, *objects: tuple[str, tuple[float, ...], int]) -> None:
    """An annotation of PASCAL VOC with name, corners and ``difficult`` of each object."""
    parts = "".join(
        f"<object><name>{name}</name><pose>Left</pose><difficult>{difficult}</difficult>"
        + "<bndbox>{2}{3}{0}{1}</bndbox>".format(
            *(
                f"<{edge}>{value}</{edge}>"
                for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            )
        )
        + "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
        + "</object>"
        for name, corners, difficult in objects
    )
    write_lines(path, f"<annotation><folder>%s</folder><filename>%s</filename>{parts}</annotation>")


def write_nabirds(root: Path) -> Path:
    keys = [f"0000139e-21dc-4d0c-bfe1-4cae3c85c8{n:02x}" for n in range(8)]
    numbers = [295 if n < 4 else 817 for n in range(8)]
    files = [f"{number:04d}/{key.replace('-', '')}.jpg" for key, number in zip(keys, numbers, strict=True)]
    write_lines(root / "images.txt", *map(" ".join, zip(keys, files, strict=True)))
    write_lines(root / "image_class_labels.txt", *(f"{key} {n}" for key, n in zip(keys, numbers, strict=True)))
    write_lines(root / "classes.txt", "0 Birds", "1 Oaks, Jays", "295 Blue Jay", "817 Oak Titmouse", "900 Blue Jay")
    write_lines(root / "train_test_split.txt", *(f"{key} {int(n in TRAIN)}" for n, key in enumerate(keys)))
    write_lines(root / "bounding_boxes.txt", *(f"{key} 4 8 36 28" for key in keys))
    write_lines(root / "sizes.txt", *(f"{key} {SIDE} {SIDE}" for key in keys))
    write_lines(root / "hierarchy.txt", "295 1", "817 1", "1 0")
    write_lines(root / "parts" / "part_locs.txt", f"{keys[0]} 0 12 13 1", f"{keys[0]} 1 -1 -1 0")
    for n, file in enumerate(files):
        write_image(root / "images" / file, n)
    return root


def write_aircraft(root: Path) -> Path:
    data = root / "data"
    variants = [("707-320" if n < 4 else "Boeing 717") for n in range(8)]
    write_lines(data / "variants.txt", "707-320", "Boeing 717", "Never seen")
    for name, images in (("train", TRAIN[::2]), ("val", TRAIN[1::2]), ("trainval", TRAIN), ("test", TEST)):
        write_lines(data / f"images_variant_{name}.txt", *(f"{n:07d} {variants[n]}" for n in images))
    write_lines(data / "images_box.txt", *(f"{n:07d} {' '.join(map(str, CORNERS))}" for n in range(8)))
    for n in range(8):
        write_image(data / "images" / f"{n:07d}.jpg", n)
    return root


def _structs(fields: dict[str, list[object]]) -> np.ndarray:
    """A MATLAB struct array of one row."""
    count = len(next(iter(fields.values())))
    array = np.empty((1, count), [(name, object) for name in fields])
    for name, values in fields.items():
        for column, value in enumerate(values):
            array[name][0, column] = value
    return array


def _cells(*texts: str) -> np.ndarray:
    cells = np.empty((1, len(texts)), object)
    cells[0, :] = texts
    return cells


def _car_boxes(count: int) -> dict[str, list[object]]:
    # The file has them in this order.
    return {
        name: [np.uint16(value)] * count
        for name, value in zip(("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), CORNERS, strict=True)
    }


CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")


def write_cars(root: Path) -> Path:
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": _cells(*CARS)})
    for folder, images, file in (
        ("cars_train", TRAIN, "devkit/cars_train_annos.mat"),
        ("cars_test", TEST, "cars_test_annos_withlabels.mat"),
    ):
        names = [f"{n + 1:05d}.jpg" for n in range(len(images))]
        labels: list[object] = [np.uint8(1 + n // 4) for n in images]
        annotations = _structs({**_car_boxes(len(images)), "class": labels, "fname": list(names)})
        savemat(root / file, {"annotations": annotations})
        for n, name in zip(images, names, strict=True):
            write_image(root / folder / name, n)
    return root


def write_old_cars(root: Path) -> Path:
    names = [f"car_ims/{n + 1:06d}.jpg" for n in range(8)]
    annotations = _structs(
        {
            "relative_im_path": list(names),
            **_car_boxes(8),
            "class": [np.uint8(1 + n // 4) for n in range(8)],
            "test": [np.uint8(n in TEST) for n in range(8)],
        }
    )
    for n, name in enumerate(names):
        write_image(root / name, n)
    savemat(root / "cars_annos.mat", {"annotations": annotations, "class_names": _cells(*CARS)})
    return root


def write_dogs(root: Path) -> Path:
    folders = ["n02085620-Chihuahua" if n < 4 else "n02111889-Samoyed" for n in range(8)]
    files = [f"{folder}/{folder.split('-')[0]}_{n}.jpg" for n, folder in enumerate(folders)]
    for n, file in enumerate(files):
        write_image(root / "Images" / file, n)
        write_objects(
            root / "Annotation" / file.removesuffix(".jpg"),
            ("Chihuahua", (1, 1, 3, 3), 0),
            ("Chihuahua", CORNERS, 0),
        )
    for name, images in (("train", TRAIN), ("test", TEST)):
        listed = np.empty((len(images), 1), object)
        listed[:, 0] = [files[n] for n in images]
        annotations = np.empty((len(images), 1), object)
        annotations[:, 0] = [files[n].removesuffix(".jpg") for n in images]
        labels = np.array([[1.0 + n // 4] for n in images])
        savemat(root / f"{name}_list.mat", {"file_list": listed, "annotation_list": annotations, "labels": labels})
    return root


def trimap() -> np.ndarray:
    """1 in the middle, a border of 3 that is 4 pixels wide, 2 outside."""
    pixels = np.full((SIDE, SIDE), 2, np.uint8)
    pixels[10:38, 10:38] = 3
    pixels[14:34, 14:34] = 1
    return pixels


def write_pets(root: Path) -> Path:
    names = [f"{'Abyssinian' if n < 4 else 'american_pit_bull_terrier'}_{n}" for n in range(8)]
    rows = [f"{name} {1 + n // 4} {1 + n // 4} 1" for n, name in enumerate(names)]
    write_lines(root / "annotations" / "list.txt", "#Image CLASS-ID SPECIES BREED ID", *rows)
    for file, images in (("trainval.txt", TRAIN), ("test.txt", TEST)):
        write_lines(root / "annotations" / file, *(rows[n] for n in images))
    for n, name in enumerate(names):
        write_image(root / "images" / f"{name}.jpg", n)
        path = root / "annotations" / "trimaps" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(trimap(), "PNG"))
    write_lines(root / "annotations" / "trimaps" / f"._{names[0]}.png", "a resource fork")
    return root


def write_flowers(root: Path) -> Path:
    for n in range(8):
        write_image(root / "jpg" / f"image_{n + 1:05d}.jpg", n)
        flower = smooth_image(SIDE, SIDE, seed=n) // 2 + 100
        picture = np.full_like(flower, (0, 0, 254))
        picture[10:38, 10:38] = flower[10:38, 10:38]
        (root / "segmim").mkdir(exist_ok=True)
        Image.fromarray(picture).save(root / "segmim" / f"segmim_{n + 1:05d}.jpg", quality=90)
    savemat(root / "imagelabels.mat", {"labels": np.array([[77] * 4 + [3] * 4], np.uint8)})
    sets = {"trnid": TRAIN[::2], "valid": TRAIN[1::2], "tstid": TEST}
    savemat(root / "setid.mat", {name: np.array([images], np.uint16) + 1 for name, images in sets.items()})
    return root


def write_voc(root: Path) -> Path:
    names = [f"2007_{n:06d}" for n in range(8)]
    for n, name in enumerate(names):
        write_image(root / "JPEGImages" / f"{name}.jpg", n)
        small, large = ("person", (1, 1, 4.5, 4), 0), ("cat" if n < 4 else "dog", CORNERS, 0)
        write_objects(root / "Annotations" / f"{name}.xml", small, large, ("sofa", (1, 1, 48, 48), 1))
    write_image(root / "JPEGImages" / "2007_000099.jpg")
    write_objects(root / "Annotations" / "2007_000099.xml", ("sofa", (1, 1, 48, 48), 1))
    lists = root / "ImageSets" / "Main"
    write_lines(lists / "train.txt", *(names[n] for n in TRAIN), "2007_000099")
    write_lines(lists / "val.txt", *(names[n] for n in TEST))
    write_lines(lists / "trainval.txt", *names, "2007_000099")
    write_lines(lists / "cat_train.txt", *(f"{names[n]} {1 if n < 4 else -1:2d}" for n in TRAIN))
    return root


def write_coco(root: Path) -> Path:
    categories = [{"id": 17, "name": "cat", "supercategory": "animal"}, {"id": 18, "name": "dog"}]
    for name, numbers in (("train2017", TRAIN), ("val2017", TEST)):
        images = [{"id": 100 + n, "file_name": f"{n:012d}.jpg", "width": SIDE, "height": SIDE} for n in numbers]
        annotations = []
        for n in numbers:
            common = {"image_id": 100 + n, "area": 9.0, "segmentation": []}
            annotations += [
                {**common, "category_id": 18, "bbox": [1.5, 2.0, 3.0, 3.0], "iscrowd": 0},
                {**common, "category_id": 17 + n // 4, "bbox": list(BOX), "iscrowd": 0},
                {**common, "category_id": 17, "bbox": [0, 0, 48, 48], "iscrowd": 1},
                {**common, "category_id": 17, "bbox": [0, 0, 48, 0], "iscrowd": 0},
            ]
            write_image(root / name / f"{n:012d}.jpg", n)
        images.append({"id": 999, "file_name": "empty.jpg"})
        content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        path = root / "annotations" / f"instances_{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return root


def write_huggingface(root: Path, kind: str = "csv") -> Path:
    for split, numbers in (("train", TRAIN), ("validation", TEST), ("test", TEST)):
        rows: list[dict[str, object]] = []
        for n in numbers:
            write_image(root / split / f"{n:04d}.png", n)
            box: object = list(BOX) if kind == "jsonl" else str(list(BOX))
            label = "cat" if n < 4 else "dog"
            rows.append({"file_name": f"{n:04d}.png", "label": label, "bbox": box, "text": f"Image {n}."})
        with (root / split / f"metadata.{kind}").open("w", newline="") as stream:
            if kind == "csv":
                writer = csv.DictWriter(stream, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            else:
                stream.writelines(json.dumps(row) + "\n" for row in rows)
    return root


def write_parquet(root: Path) -> Path:
    """Parquet files as ``datasets`` pushes them: a column of images, and numbers of classes named in the metadata."""
    import pyarrow as pa
    from pyarrow import parquet

    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    (root / "data").mkdir(parents=True)
    for split, numbers in (("train", TRAIN), ("test", TEST)):
        held = [
            {"bytes": encoded(smooth_image(SIDE, SIDE, seed=n), "PNG"), "path": f"../{n}.png" if n else None}
            for n in numbers
        ]
        table = pa.table({"image": held, "label": [n // 4 for n in numbers]})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        parquet.write_table(table, root / "data" / f"{split}-00000-of-00001.parquet")
    return root
