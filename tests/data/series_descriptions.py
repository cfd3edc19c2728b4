"""Series descriptions as scanners and sites write them, by the sequence that they mean.

Those of `CONFIRMED` were found, in these very words, in public sources: lists of series in code, notebooks and reports
on GitHub about the collections that its keys name. Those of `WRITTEN` were written from the vendors' protocol names
(Siemens `t1_mprage_sag_p2_iso`, GE `AX T1 FLAIR`, Philips `T1W_3D_TFE`) with what sites add to them, in several
languages, and were not looked for or not found.
"""

# ruff: noqa: RUF001 (Cyrillic and Turkish letters are meant)

CONFIRMED = {
    "PPMI, as two HeuDiConv heuristics for it list them": {
        "pre": """
            MPRAGE 2 ADNI | MPRAGE ADNI | MPRAGE GRAPPA 2 | MPRAGE GRAPPA2 | MPRAGE GRAPPA2(adni) | MPRAGE w/ GRAPPA |
            MPRAGE_GRAPPA | MPRAGE GRAPPA_ND | SAG T1 3D MPRAGE | sag mprage | MPRAGEadni | MPRAGE T1 SAG |
            MPRAGE SAG | SAG T1 3DMPRAGE | SAG 3D T1 | SAG MPRAGE GRAPPA2-NEW2016 | AXIAL T1 3D MPRAGE | sT1W_3D_FFE |
            sT1W_3D_ISO | sT1W_3D_TFE | sag 3D FSPGR BRAVO straight | SAG T1 3D FSPGR | SAG FSPGR 3D |
            SAG T1 3D FSPGR 3RD REPEAT | SAG FSPGR BRAVO | SAG SPGR 3D | SAG 3D SPGR | FSPGR 3D SAG |
            t1_mpr_ns_sag_p2_iso | T1 | T1 Repeat | AX T1 | axial spgr | T1W_3D_FFE AX | 3D SAG T1 MPRAGE | 3D T1 |
            3D T1-weighted | Accelerated Sag IR-FSPGR | MPRAGE | MPRAGE - Sag | SAG 3D T1 FSPGR |
            SAG FSPGR 3D VOLUMETRIC T1 | T1-weighted, 3D VOLUMETRIC | tra_T1_MPRAGE | 3D T1 _weighted |
            Sagittal 3D Accelerated MPRAGE | MPRAGE Repeat | T1W_3D_FFE_COR | MPRAGE_SENSE2 |
            AX_3D_FSPGR_straight_brain_lab | rpt_PPMI_MPRAGE_GRAPPA2 | SAG_T1_SE | T1_SAG | Sag_T1 | T1_AXIAL |
            3D_Sagittal_T1 | Ax T1 FLAIR
        """,
        "post": """
            AX T1 SE C+
        """,
        "flair": """
            FLAIR | FLAIR_LongTR AX | FLAIR_LongTR SENSE | AX FLAIR | AXIAL FLAIR | FLAIR AXIAL |
            Cor FLAIR TI_2800ms | AX T2 FLAIR | T2  AXIAL FLAIR | Ax T2 FLAIR  ang to ac-pc | T2W_FLAIR |
            AX FLAIR T2 | AX T2 FLAIR 5/1 | t2_tirm_tra_dark-fluid_ | t2_tirm_tra_dark-fluid NO BLADE |
            3D T2  SPC FLAIR C9C1HN007 | 3D T2 FLAIR | 3D T2 FLAIR_ND | 3D T2 FLAIR_SAGITAL | 3D T2 FLAIR_ti1650 |
            3D_Brain_VIEW_FLAIR_SAG | 3D_T2_FLAIR_SAG INVICCRO T2 FLAIR | SAG 3D FLAIR | SAG CUBE FLAIR |
            Sag 3D T2 FLAIR
        """,
        "t2": """
            T2 | t2_tse_tra | T2 COR | T2W_TSE | AX T2 | AX T2 AC-PC LINE ENTIRE BRAIN | Ax T2 Fse thin ac-pc |
            AXIAL FSE T2 FS | *AX FSE T2 | AXIAL  T2  FSE | Ax T2 FSE
        """,
        "series": """
            localizer | SURVEY | 3 Plane Localizer | 3_PLANE_LOC | MIDLINE_SAG_LOC | B0rf Map | Field_mapping |
            GRE B0 | Cal_Head_24 | IsoADC | AX DE TSE | AX DUAL_TSE | DUAL_TSE | sT2W/PD_TSE | Axial PD-T2-FS TSE |
            AX PD + T2 | PD-T2 DUAL AXIAL TSE | Ax PD /T2 | AX T2 DE | t2 weighted double echo | Axial_PD_T2 |
            Ax T2* GRE | AXIAL_T2_STAR | AX_T2_GRE_MT | 2D GRE - MT | 2D GRE-NM_MT | NM-MT | AX GRE -MT |
            ep2d_RESTING_STATE | ep2d_bold_rest | ep2d_diff_LR | BOLD_RS ACPC_LINE | DTI_gated | DTI_non_gated |
            DTI_pulse gated_AC/PC line | REPEAT_DTI_NON-GATED | TRIGGERED DTI | DTI_30dir L-R | AX DTI   L - R |
            DTI_gated_ADC | DTI_gated_FA | DTI_gated_TRACEW | DTI Sequence_ADC
        """,
    },
    "UPENN-GBM at the Imaging Data Commons": {
        "pre": """
            t1 axial: Processed_CaPTk | AX T1 PRE : Processed_CaPTk | AX T1 3D PRE: Processed_CaPTk |
            T1 SAG MPRAGE : Processed_CaPTk | COR T1 MPR: Processed_CaPTk | AX T1 MPRAGE ISOTROPIC: Processed_CaPTk |
            AXIAL T1 MPRAGE BRAIN : Processed_CaPTk | AXIAL T1 BRAIN 3D : Processed_CaPTk | AX T1 FSE
        """,
        "post": """
            t1 axial stealth-post : Processed_CaPTk | t1 axial stealth-post_T : Processed_CaPTk |
            t1 axial stealth-post_TERA: Processed_CaPTk | AX T1 3D POST STEALTH : Processed_CaPTk |
            AX T1 POST: Processed_CaPTk | AX T1  POST : Processed_CaPTk | AX T1 POST STEALTH: Processed_CaPTk |
            AXIAL T1 FLOW COMP POST : Processed_CaPTk | POST AX T1  FS FSE: Processed_CaPTk |
            COR T1 POST FS: Processed_CaPTk | T1 MPRAGE SAG ISO post gad: Processed_CaPTk
        """,
        "flair": """
            t2_Flair_axial: Processed_CaPTk | AXIAL T2 FLAIR: Processed_CaPTk | AX FLAIR FS
        """,
        "t2": """
            Axial T2 tse: Processed_CaPTk | T2 SAG SPACE: Processed_CaPTk | Ax T2 POST: Processed_CaPTk
        """,
    },
    "REMBRANDT and TCGA-GBM at TCIA, and a neurosurgical site": {
        "pre": """
            axial t1 | sag t1 | axial t1 pre gd | sT1W_3D_TFE_AX PRE
        """,
        "post": """
            axial t1post gd | coronal t1 post gd | cor t1 post gad. | axial t1 gd | axial t1 post gd | AX T1 POST |
            3D AX T1 POST | 3D AX T1 Post-contrast Intra-op Thin-cut
        """,
        "t2": """
            AX T2 FSE
        """,
        "series": """
            axial diffusion | axial diff. | axial perfusion | axial mpgr | axial t1 si localizer |
            spectro t1 localizer | sag loc | FA MAP | ADC MAP | DWI MAP
        """,
    },
    # Its `t1_tirm_tra_dark-fluid` and `T1 TIR cor P3` are after contrast, which no word of them says: left out here.
    "a hospital's glioma cohort, GE and Siemens": {
        "pre": """
            AX T1 FLAIR | Ax T1,Flair | OAx T1 FLAIR | Sag T1,Flair | OSag T1 FLAIR | OSag T1FSE | OAx T1Flair |
            Ax 3D T1BRAVO | t1_tse_dark-fluid_tra_p2
        """,
        "post": """
            OAx T1+C | Ax T1,Flair +C | AX T1+C | SAG T1+C | COR T1+C | OCor T1+C | OSag T1+C | Sag CUBE T1 +C |
            Sag T1,Flair +C | Cor T1,Flair +C
        """,
        "flair": """
            t2_FLAIR_P3 | t2_tirm_tra_dark-fluid | Ax Flair irFSE | OAx T2 FLAIR+C | OAx T2 FLAIR | Ax T2Flair |
            OAx T2Flair | t2_tse_dark-fluid_tra_320
        """,
        "t2": """
            AX T2 FRFSE | t2_tse_tra_320_p2 | FL:C/OAx T2 PROPELLER | t2_tse_tra_P2_24slice | OAx T2 frFSE |
            Ax T2 PROPELLER
        """,
        "series": """
            3-Pl T2* FGRE | 3-pl T2* Loc | 3-Pl Loc T1 | 3pl Loc | Apparent Diffusion Coefficient (mm2/s) |
            Exponential Apparent Diffusion Coefficient | OAx DWI Asset | Ax DWI 1000b | Ax DTI 13 Directions |
            ep2d_diff_3scan_trace_p2 | ep2d_diff_3scan_trace_p2_ADC | ep2d_diff_3scan_trace_p2_TRACEW | SWI_Images |
            Mag_Images | Pha_Images | mIP_Images(SW) | FILT_PHA: OAx SWAN Out of Phase | Ax SWAN FAST |
            OAx PWI 50 Phase | Cerebral Blood Flow | 3D ASL PLD=1.5s | AX 3D ASL | Ax 3D ASL (non-contrast) |
            csi_se_30_fast | 2D CSI-PROBE 35 | CEST_ssfse | TOF_3D_multi-slab | TOF_3D_multi-slab_MIP_SAG |
            OAx 3D TOF MRA 3Slab | <MIP Range> | ASSET Calibration | Screen Save | PhoenixZIPReport |
            Processed Images | AAHead_Scout_MPR_tra | OAx fs PD | t2_swi_tra_p2_2mm
        """,
    },
    "a stroke registry in Iowa": {
        "pre": """
            Sag_CUBE_T1_8ch_PRE | AXIAL_3D_T1 | SAG_T1_FSE | AX_T1_FSE | Ax_T1_PROPELLER | T1_FSPGR_3D_AX |
            V3D_T1_COR | Sag_CUBE_T1 | AX_CUBE_T1 | AXIAL_T1_FLAIR
        """,
        "post": """
            Sag_CUBE_T1_8ch_POST | POST_AX_T1 | POST_COR_T1 | SAG_T1_FSE_POST | Ax_T1_PROPELLER_POST |
            COR_T1_POST_OPTIONAL | AX_T_T1_FS_POST | 3D_T1_AX_POST | Sag_CUBE_T1_FS_POST | AXIAL_T1_FS_POST
        """,
        "flair": """
            SAG_3D_FLAIR | Ax_T2_FLAIR_FS | AX_T2_FLAIR_PROPELLER | T2_FLAIR_NEW
        """,
        "t2": """
            T2_AXL | Cor_T2_FSE | Ax_T2_FS | Ax_T2_PROPELLER_FS_Post | AXIAL_T2_MV | COR_T2_FAST
        """,
        "series": """
            AX_T2__GRE_EPI | T2__GRE_AX | T2W_FFE | AXIAL_T2_FFE | SWAN_RECON | COR_SWAN | Survey_MST |
            ASSET_calibration_8ch | COL_3D_TOF_1SLAB_8ch | T2_FL2D_AX_HEMO | AX_T2_STAR__HEMO_ | ax_gre | PD_T2_AX
        """,
    },
    "public protocols and code of single sites": {
        "pre": """
            t1_mprage_sag_p2_iso | t1_mpr_sag_p2_iso | t1_space_sag_p2_iso | t1_fl2d_tra | t1_se_tra | t1_blade_tra |
            eT1W_SE | T1W_SE | T1W_IR | sT1W_3D_TFE_PRE_GD | CS sag T1W_3D_TFE nativ | T1w_MPR | AXIAL T1 PRE GD
        """,
        "post": """
            t1_mprage_sag_p2_iso_KM | T1W_SE_GD_CLEAR | sT1W_3D_TFE_32ch_GD | Ax T1 POST GAD | T1 CON GADOLINIO |
            T1 POST GAD | t1_cor_tse post gad | 3D Ax T1 +C | 3D T1 BRAVO GD | +c Ax T1 Stealth bravo |
            t1_vibe_fs_cor_CM_19
        """,
        "flair": """
            SAG Cube T2 FLAIR | Sag T2 FLAIR Cube | +c Sag CUBE T2 FLAIR | t2_spc_da-fl_irprep_sag_p2_iso |
            t2_space_dark-fluid_sag_p2_iso | t2_flair_blade_tra | t2_flair_sag_p2_iso | t2_blade_tra_dark-fl |
            T2W_FLAIR_SPIR_tra | eT2W_FLAIR SPIR CLEAR | eFLAIR_longTR_SPIR | Sag_T2w_3D_FLAIR_SPACE_ND |
            3D_Brain_VIEW_FLAIR_SHC
        """,
        "t2": """
            t2_blade_tra | t2_blade_tra_320 | t2_space_iso | T2w_SPC | T2W_VISTA_HR_SENSE | eT2W_TSE SENSE |
            T2W_TSE SENSE | eT2W_TSE_DRIVE_HR | 3D_Brain_VIEW_T2 | 3D Ax T2 Cube HyperCube.
        """,
        "series": """
            t2_fl2d_tra_hemo | ciss3d | VEN_BOLD | eSTIR_longTE | resolve_3scan_trace_p2 | pcasl_3d_singleTI |
            PDW_TSE_Tra | rsfMRI_LR
        """,
    },
}

WRITTEN = {
    "pre": """
        T1 Nicht KM | T1 nicht km | T1 kein KM | T1 keine KM | T1 o. KM | T1 o.KM | T1 o KM | T1 o/KM | T1 oKM
        | T1 bez kontrastu | T1 s/c | T1 sin contraste | T1 SIN GD | T1 s/ contraste | T1 sans gado |
        T1 sans inj | T1 sans injection | T1 avant gado | T1 avant injection | T1 av inj | T1 pre mdc |
        T1 basale | T1 smdc | T1 zonder contrast | T1 blanco | T1 blanco tra | T1 nativ | T1 native |
        T1 vor KM | T1 v. KM | T1 vKM | T1 not contrast | T1 no contrast | T1 not enhanced | T1 unenhanced |
        T1 never contrast | T1 before contrast | T1 before gad | T1 c- | T1 -C | T1 GD- | T1 PRECONTRAST |
        T1 NONCONTRAST | T1 NON-CON | T1 W/O CON | T1 W/OUT CONTRAST | T1 WITHOUT GAD | T1 WOC | T1 WOCM |
        T1 WO C | MPRAGE ohne KM | MPRAGE nativ | t1_se_tra_ohne | T1 IR | 3D T1 TFE | T1 3D GR | T1 VOL |
        Sag T1 SPACE | T1 kontrastsiz | T1 s contraste | T1 SC | T1 s/gd | T1 sGd | T1 sem contraste |
        T1 pré contraste | T1 pre |
        T1 u/ kontrast | T1 + FS |
        Ax T1 | AXIAL T1 | T1 AXIAL | SAG T1 | Sag T1 | COR T1 | AX T1 SE | SAG T1 SE | SAG T1 FLAIR |
        Sag T1 FLAIR | T1 FLAIR | T1_FLAIR | AX T1 PRE | AX T1 PRE GAD | T1 pre contrast | T1 PRE-CONTRAST |
        T1 precontrast | AX T1 W/O | AX T1 W/O CONTRAST | AX T1 WO | AX T1 WO CONTRAST | T1 without contrast |
        T1 non-contrast | T1 noncontrast | T1 non con | T1 no gad | T1 C- | T1 (C-) | t1_se_sag | t1_tse_tra |
        t1_fl2d_sag | t1_mprage_sag_p2_iso_1.0 | t1_mpr_ns_sag_pat2_iso | t1_mprage_tra_p2 |
        t1_tirm_tra_dark-fluid | t1_tirm_sag | MPRAGE_SAG | Sag MPRAGE | SAG MP-RAGE | MP-RAGE | IR-FSPGR |
        Sag IR-FSPGR | SAG 3D FSPGR | AX 3D SPGR | Ax BRAVO | SAG BRAVO | Ax 3D T1 BRAVO | T1W_TSE | T1W_FFE |
        T1W_3D_TFE | T1W_3D_FFE | 3D_T1W_TFE | T1_3D_TFE | T1W_IR_TSE | T1 SE nativ | T1 tra nativ |
        t1_se_tra_nativ | T1 ohne KM | T1 sans contraste | T1 SIN CONTRASTE | T1 senza mdc | 3DT1 | AXT1 |
        WIP T1W_3D_TFE SENSE | T1 POST OP | AX T1 REPEAT2 | T1C- | T1 (-C) | AX T1 -C | AX T1 C(-) | T1 KM- | T1 Gd- |
        T1 CE- | T1W_SE_CLEAR_C- | T1 -GD | T1_C_minus | T1 GD neg | T1 TRA VOR KM | T1 vor Kontrastmittel |
        T1 AVANT INJECTION | T1 SAG S/C | AX T1 S/GD | T1 tra s/ gado |
        T1 SIN CIV | T1 SE SAG ANTES | T1 Post SRS | T1 単純 | T1 (-)C |
        T1 (-) contrast | T1 tra före kontrast | T1 før kontrast | T1 przed KL | T1 pred kontrastem | T1 до КУ |
        T1 kontrastsız | T1 kontrast öncesi | T1 平扫 | T1 voor contrast | T1 prä KM | T1preGd | eTHRIVE |
        T1 for kontrast
    """,
    "post": """
        AX T1 WC | T1 WC | AX T1 W C | T1 W/C | SAG T1 WC | t1 wcontrast | AX T1 W CON | AX T1 W GAD |
        AX T1 W GD | T1 m. KM | T1 m.KM | T1 mKM | T1 m KM | T1 mit KM | T1 m/k | T1 z kontrastem | T1 plus |
        T1 plus KM | T1 PLUS C | T1 + C | T1 CON GD | T1 c/c | T1 c/ contraste | T1 avec gado |
        T1 avec injection | T1 apres injection | T1 post inj | T1 inj | T1 après gado | T1 ap inj |
        T1 dopo mdc | T1 MDC | T1 post mdc | T1 cmdc | T1 met contrast | T1 na contrast | T1 n KM | T1 nKM |
        T1 n. KM | T1 after contrast | T1 with gad | T1 c+ | T1 +C | T1 C+ FS | T1 GD+ | T1 POSTCONTRAST |
        T1 WITH CONTRAST | MPRAGE post | MPRAGE GD | MPRAGE KM | MPRAGE mit KM | t1_mprage_sag_km |
        t1_mpr_tra_iso_p2_KM | t1_vibe_fs_km | t1_se_tra_fs_KM | t1_se_tra_mit | T1W_SE+C | T1W_TSE+GD |
        T1W_3D_TFE_GD | sT1W_3D_TFE +C | 3D BRAVO +C | Ax 3D T1 BRAVO+C | AX BRAVO POST | SAG CUBE T1 +C |
        Sag CUBE T1 POST GAD | T1 FLAIR POST | Sag T1 SPACE Gd | T1 black blood post | T1 MSDE +C | T1 fs gd |
        T1 FS C | T1 GAD FS | T1 gadolinium | T1 Gadovist | T1 Dotagraf | T1 Gadoterate | T1 Gadobutrol |
        T1 contrasted | T1 CONTR | T1 KONTRAST | T1 KONTR | T1 kontrastli | T1 contraste | T1 contrasto |
        T1 c/gd | T1 cgd | T1 com contraste | T1 pós contraste | T1 pos gd | T1 tardif | T1 late | T1 delayed |
        T1+ | AX T1 + | T1+ FS | T1_TSE_+K | GdT1 | t1_tra_nachKM |
        AX T1 POST GAD | AX T1 POST GD | AX T1 POST CONTRAST | AXIAL T1 POST | T1 AXIAL POST | T1 POST |
        T1 post-contrast | T1 postcontrast | AX T1 POST FS | COR T1 POST | Cor T1 POST GAD | COR T1 POST CONTRAST |
        SAG T1 POST GAD | AX T1 FLAIR POST | AX T1 FLAIR +C | AX T1 +C | Ax T1 + C | AX T1 C+ | T1 C+ | T1+C |
        T1 + GAD | T1+GAD | T1 +GD | AX T1 GAD | AX T1 GD | T1 Gd | T1GD | T1C | T1CE | T1 CE | t1_se_tra_KM |
        t1_se_tra_km | t1_tse_tra_KM | T1 KM | T1_KM | T1 nach KM | T1 MIT KM | t1_mprage_sag_p2_iso_Gd |
        t1_mprage_sag_p2_iso POST | t1_mprage_tra_p2_ce | t1_fl2d_tra_CE | t1_space_sag_p2_iso_post |
        T1 with contrast | AX T1 W CONTRAST | AX T1 W/ CONTRAST | T1W_SE CONTRAST | T1W_SE_GD | T1W_3D_TFE GD |
        T1W_3D_FFE CE | sT1W_3D_TFE_GADO | T1W_SE +C | T1W_TSE_C | ce-gd_T1w | x_t1_post | MPRAGE +GAD |
        MPRAGE + C | MPRAGE POST | MPRAGE_POST_CONTRAST | SAG MPRAGE POST | Ax BRAVO POST | Ax BRAVO +C |
        SAG BRAVO GAD | 3D T1 POST (SPGR) | AX 3D SPGR POST | SAG 3D FSPGR +C | AX FSPGR POST GAD | T1 GADO |
        T1 con contraste | T1 avec contraste | T1 con mdc | AX T1 GADAVIST | T1 Dotarem | T1 TRA ENHANCED |
        AX T1 FAT SAT POST GAD | VIBE POST | T1 VIBE FS KM | T1-C | T1 AX C(+) | AX T1 WITH | T1 W CONT | T1 SAG C/C |
        T1 AX POS | T1 APRES INJECTION | T1 PROHANCE | T1 CLARISCAN | T1 DELAYED | T1 CIV+ | T1 CE - AXIAL | 造影T1 |
        T1 после контраста | T1 с КУ | T1 po kontraście | T1 po KL | T1 efter kontrast | ceT1 | CT1 | T1postGd | T1 W/ |
        T1 增强 | T1 조영증강 | LAVA-Flex +C | AX T1 FOR GAD | T1 STEALTH FOR CONTRAST | T1 SE + | T1 FS + | MPRAGE+ |
        MPRAGE + | BRAVO+ | T1W_SE+ | AX T1 (+) | T1 (+) FS | T1KM | T1GADO | t1cm
    """,
    "flair": """
        Sag CUBE T2 FLAIR | FLAIR nach KM | AX FLAIR POST | T2 FLAIR + C | T2 TIRM dark fluid |
        t2_space_dark-fluid_sag | t2_spc_da-fl_sag | 3D FLAIR VISTA | BrainVIEW FLAIR |
        Ax FLAIR | COR FLAIR | SAG FLAIR | Ax T2 FLAIR | AX T2 FLAIR FS | T2 FLAIR | T2_FLAIR | T2-FLAIR |
        Ax T2 FLAIR PROPELLER | SAG CUBE T2 FLAIR | Sag CUBE FLAIR | SAG T2 FLAIR CUBE | 3D FLAIR | 3D_FLAIR |
        FLAIR_LongTR | FLAIR_longTR SENSE | 3D_Brain_View_FLAIR | sFLAIR | VISTA FLAIR | T2W_FLAIR_SPIR |
        T2W_3D_FLAIR | t2_tirm_TRA_dark-fluid_3mm | t2_tirm_tra_dark-fluid_FLAIR | t2_tirm_sag |
        t2_spc_da-fl_irprep_sag | t2_space_flair_sag | t2_flair_tra | t2_blade_tra_dark-fluid | FLAIR POST |
        AX FLAIR POST GAD | AX FLAIR +C | FLAIR KM | dark fluid tra
    """,
    "t2": """
        BrainVIEW T2 | VISTA T2 | T2 PROPELLER | Ax T2 PROP | T2 BLADE tra | T2W MultiVane | T2 CUBE |
        T2 TSE tra | T2 POST | AX T2 + C | T2 axiale | T2 transversal | T2w_tse_tra | AX FRFSE T2 |
        AX T2 FRFSE FS |
        Ax T2 | AXIAL T2 | COR T2 | SAG T2 | Ax T2 FSE PROPELLER | AX T2 PROPELLER | FSE T2 | T2 AXIAL | T2 TSE |
        t2_tse_tra_320_4mm | t2_tse_tra_p2 | t2_tse_cor | t2_space_sag_p2_iso | t2_spc_sag | t2_haste_tra |
        sT2W_TSE | eT2W_TSE | T2W_3D_TSE | T2W_VISTA | SAG CUBE T2 | AX FRFSE | AX SSFSE | T2 FAT SAT | AX T2 FS |
        AX T2 POST GAD | T2 tra nach KM | WIP T2W_TSE | AXT2
    """,
    "series": """
        EPI T2 | T2 EPI | T2 epi tra | EP2D T2 | SE EPI T2 | T2 GRE | T2* | T2 HEMO | T2_fl2d_tra_hemo |
        AX T2 FFE | AX SWI | T1 map | DCE T1 | T1 DCE perm | T1 post minus pre | T2 relaxometry | T2 mapping |
        T1 mapping | t1_fl3d_tof | TOF 3D | PD T2 | DUAL T2 | T2 perfusion | T2 perf EPI | T2 PWI | ADC T2 |
        MRA T1 | T1 CISS | STIR | AX STIR | T2 STIR | T2_stir_cor | SPINE T1 | T1 sag LWS | T1 HWS |
        T2 localizer | HASTE localizer |
        AX T2 MPGR |
        LOCALIZER | 3-plane Loc | Scout | AX DWI | Ax DWI b1000 | DTI 30 dir | Apparent Diffusion Coefficient ADC |
        ADC | SWAN | Mag_Images GRE | AX GRE | AX T2* GRE | AX T2 GRE | T2 STAR | 3D TOF MRA | AX TOF | MRV |
        ep2d_perf_p2 | DSC PERFUSION | relCBV | ASL | BOLD | Ax CISS | FIESTA | COR STIR | SPECTRO | PD | AX PD |
        PD/T2 DUAL ECHO | T1 MAP | SUBTRACTION | T1 SUB | t1_twist_vibe_dyn | COR T1 PITUITARY DYN | t2_medic_tra |
        t2_me2d1r3_tra | Ax T2* MERGE | T2 ETOILE | T2 AX EG | MP2RAGE_INV1 | PosDisp: [5] t2_tirm_tra_dark-fluid |
        T1 SAG C-SPINE | T2 SAG CERVICAL | Subtraktion T1 | Substraction T1 | Soustraction T1 Gado |
        RESTA T1 | sottrazione T1 | T1 Post - T1 Pre | 3D DIR FLAIR | MP2RAGE_T1_Images | MOLLI T1 | t2_ci3d_tra_iso |
        T2 TRUFI | Key images T1 | T2-star | T2-STAR AX | T2_FLASH | t2_flash_tra | venogram T1 | Venography
    """,
}


def descriptions(table: dict[str, str]) -> list[tuple[str, str]]:
    """Return the sequence and the words of each description in a table such as `WRITTEN`."""
    words = ((sequence, " ".join(text.split("\n"))) for sequence, text in table.items())
    return [(sequence, one.strip()) for sequence, text in words for one in text.split(" | ")]


ALL = [*(pair for table in CONFIRMED.values() for pair in descriptions(table)), *descriptions(WRITTEN)]
